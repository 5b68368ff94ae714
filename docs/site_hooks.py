"""What mkdocs needs beside its configuration: the start page, the API reference, decisions, links out of the folder."""

import ast
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "generate", "train", "evaluate")


class PlainRoles(griffe.Extension):
    """Turns roles of reStructuredText into code and ``::`` into a colon; a setting's description is its docstring."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object in place."""
        if isinstance(obj, griffe.Attribute) and obj.docstring is None and "description=" in str(obj.value):
            call = ast.parse(str(obj.value), mode="eval").body
            words = {k.arg: k.value for k in call.keywords} if isinstance(call, ast.Call) else {}
            if isinstance(text := words.get("description"), ast.Constant):
                obj.docstring = griffe.Docstring(str(text.value), parent=obj)
        if obj.docstring:
            text = re.sub(r"^(\s*)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
            text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
            obj.docstring.value = re.sub(r"^(\s*)::$", "", re.sub(r"(\S)::$", r"\1:", text, flags=re.M), flags=re.M)


def folders() -> list[Path]:
    """Return the folders of the program that hold modules, relative to the root."""
    found = {module.parent for room in ROOMS for module in (ROOT / room).rglob("*.py")}
    return sorted(folder.relative_to(ROOT) for folder in found)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List decisions and API pages in the navigation."""
    decisions = [{_title(page): f"adr/{page.name}"} for page in sorted((ROOT / "docs/adr").glob("*.md"))]
    pages = [{folder.as_posix(): _page(folder)} for folder in folders()]
    config.nav = [*(config.nav or []), {"Decisions": decisions}, {"API": pages}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as the start page, and one page of reference per folder."""
    readme = (ROOT / "README.md").read_text("utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    for folder in folders():
        modules = sorted(
            m for m in (ROOT / folder).glob("*.py") if m.name != "__init__.py" or m.read_text().count("\n") > 3
        )
        parts = [
            ".".join(("sclmkb", *m.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__") for m in modules
        ]
        text = "\n\n".join([f"# {folder.as_posix()}/", *(f"::: {name}" for name in parts)])
        files.append(File.generated(config, _page(folder), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Name files outside of docs/ instead of linking to them: the site does not hold them."""

    def outside(match: re.Match[str]) -> str:
        text, link = match[1], match[2].split("#")[0]
        here = ROOT if page.file.src_uri == "index.md" else (ROOT / "docs" / page.file.src_uri).parent
        path = (here / link).resolve()
        known = path.is_relative_to(ROOT / "docs") or (here == ROOT and (ROOT / "docs" / link).exists())
        return match[0] if known or not path.exists() else f"{text} (`{path.relative_to(ROOT)}`)"

    return re.sub(r"(?<!!)\[([^]]*)\]\((?!\w+:|#)([^)\s]+)\)", outside, markdown)


def _page(folder: Path) -> str:
    return f"api/{'.'.join(folder.parts)}.md"


def _title(page: Path) -> str:
    return page.read_text("utf-8").splitlines()[0].removeprefix("# ").replace("`", "")
