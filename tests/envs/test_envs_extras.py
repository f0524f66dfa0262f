"""Optional extras: the error for a missing one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from env_cases import SPEC, Counting

import envs
from envs import EnvError, MissingExtraError, extras, registry


@pytest.fixture
def lacking(monkeypatch):
    """An environment `wrapped` whose extra `nowhere` is not installed."""
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(extras, "EXTRA_MODULES", {"nowhere": ("no_such_module", "json")})
    envs.register(replace(SPEC, id="wrapped", extra="nowhere"), "no_such_package.env:Env", demonstrator=Counting)
    return "wrapped"


def test_a_missing_extra_is_reported_with_the_install_command(lacking):
    says = r"wrapped needs the optional extra 'nowhere', but no_such_module is not installed: run `make install`"
    for call in (envs.check, envs.make):
        with pytest.raises(MissingExtraError, match=says) as caught:
            call(lacking)
        assert isinstance(caught.value, EnvError)
    assert envs.missing_modules("nowhere") == ["no_such_module"]


def test_installed_and_unknown_extras_have_no_missing_modules(monkeypatch):
    monkeypatch.setattr(extras, "EXTRA_MODULES", {"here": ("json",)})
    extras.require_extra("here", "wrapped")
    extras.require_extra("of someone else", "wrapped")
    extras.require_extra(None, "wrapped")
    assert envs.missing_modules("here") == []
