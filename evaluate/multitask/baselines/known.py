"""The baselines by their name: a new one is a module of this folder and its line here."""

from collections.abc import Sequence

from sclmkb.common.console import say
from sclmkb.common.errors import UserError
from sclmkb.evaluate.multitask.baselines import digital, training_free
from sclmkb.evaluate.multitask.baselines.base import Baseline

BASELINES: Sequence[Baseline] = (*digital.BASELINES, *training_free.BASELINES)
"""Several of one name do different tasks."""


def baselines_named(names: Sequence[str]) -> list[Baseline]:
    """Return the baselines of some names, without those that lack something that is not installed, and say so.

    Raises:
        UserError: if there is none of a name.
    """
    known = list(dict.fromkeys(one.name for one in BASELINES))
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"there is no baseline '{unknown[0]}': choose some of {', '.join(known)}")
    chosen = [one for one in BASELINES if one.name in names]
    for name, missing in {one.name: one.lacks() for one in chosen if one.lacks()}.items():
        say(f"eval: left out: baseline {name}: {missing}")
    return [one for one in chosen if not one.lacks()]
