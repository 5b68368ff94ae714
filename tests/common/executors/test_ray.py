"""What the Ray executor does without Ray; test_real_ray.py has the real one."""

import sys
from typing import Any

import pytest

from sclmkb.common.errors import UserError
from sclmkb.common.executors.local import Local
from sclmkb.common.executors.ray import Ray, RaySettings
from sclmkb.common.executors.ray_cluster import actor_with


def executor() -> Ray:
    return Ray(settings=RaySettings(), program="p", arguments=["toy", "--join"], address="127.0.0.1:1")


def test_nothing_to_do_needs_no_ray(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'sclmkb\[ray\]'"):
        executor().execute(stage.work())
    Local().execute(stage.work())
    (stage.out / "README.md").unlink()
    executor().execute(stage.work())
    assert (stage.out / "README.md").exists()


def test_nobody_there_is_said_soon(stage: Any) -> None:
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"cannot work with the Ray cluster at 127\.0\.0\.1:1: .*refused"):
        executor().execute(stage.work())


class Toy:
    """Any actor."""


@pytest.mark.parametrize("options", [{"colour": "red"}, {"resources": 3}])
def test_options_that_ray_does_not_take_are_one_line(options: dict[str, Any]) -> None:
    ray = pytest.importorskip("ray")
    with pytest.raises(UserError, match=f"ray.options: .*{next(iter(options))}"):
        actor_with(ray.remote(Toy), options)
