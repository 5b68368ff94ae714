"""A control without language model: puts the caption into one of a few fixed phrases, drawn by the seed.

Generated captions have to be compared with this control. Its phrases fit pictures, motion and sound, and are none of
the wordings of the test captions.
"""

from collections.abc import Sequence

from sclmkb.generate.engines.base import Completion, Hear, Request, tell, unheard

TEMPLATES = (
    "this is {head}{rest}",
    "there is {head}{rest} here",
    "an example of {head}{rest}",
    "a case of {head}{rest}",
    "{rest_first}{head}",
    "here we have {head}{rest}",
    "one can make out {head}{rest}",
    "{head} once more{rest}",
)


class TemplateEngine:
    """Satisfies :class:`sclmkb.generate.engines.base.Engine`."""

    def generate(self, requests: Sequence[Request], hear: Hear = unheard) -> list[Completion]:
        """Return the caption, the last turn of each request, in a phrase drawn by its seed."""
        return tell([self._rewrite(request) for request in requests], hear)

    def _rewrite(self, request: Request) -> Completion:
        caption = request.messages[-1].content.partition(": ")[2] or request.messages[-1].content
        head, separator, rest = caption.partition(" with ")
        template = TEMPLATES[request.seed % len(TEMPLATES)]
        text = template.format(
            head=head, rest=f"{separator}{rest}", rest_first=f"with {rest}, " if rest else "something like "
        )
        return Completion(text=text, finish_reason="stop", num_tokens=len(text.split()))
