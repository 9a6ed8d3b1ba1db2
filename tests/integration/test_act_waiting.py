"""`polaris act` on a bus whose node is silent: the store knows, or nobody does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.conftest import MakeNATSServer

from polaris.cli import _act, _exit
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus
from polaris.runtime import Settings, load_settings
from polaris.storage import PolarisDataStore

REQUEST = _act.Request(system_id="web", action_type="scale", parameters=[], action_id="a1", timeout_s=0.1, wait=True)


@pytest.fixture
async def settings(tmp_path: Path, make_nats_server: MakeNATSServer) -> Settings:
    server = await make_nats_server()
    overrides = {"nats.servers": [server.url], "nats.token": server.token, "node.data_dir": str(tmp_path / "data")}
    return load_settings(None, environment={}, overrides=overrides)


async def test_without_an_answer_the_action_is_named_for_a_later_question(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_act, "ANSWER_MARGIN_S", 0.2)
    assert await asyncio.to_thread(_act.act_on, settings, REQUEST, as_json=False) == _exit.TIMED_OUT
    said = capsys.readouterr()
    assert said.out == ""
    assert "will be carried out once. Ask again with: --id a1" in said.err


async def test_a_result_that_nobody_announced_is_found_in_the_store(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_act, "LOOK_INTO_STORE_EVERY_S", 0.05)
    settings.data_dir.mkdir()
    async with PolarisDataStore.sqlite(settings.store_path) as store:
        await store.actions.save(AdaptationAction("a1", "scale", "web"))
        patient = msgspec.structs.replace(REQUEST, timeout_s=20.0)
        asked = asyncio.create_task(asyncio.to_thread(_act.act_on, settings, patient, as_json=False))
        await asyncio.sleep(0.3)
        assert not asked.done(), "an action that has no result yet is waited for"
        await store.results.save(ExecutionResult("a1", ExecutionStatus.PARTIAL, error_message="only one of two"))
        assert await asked == _exit.FAILED
    assert capsys.readouterr().out == "a1  partial\n  only one of two\n"


async def test_a_store_that_cannot_be_read_does_not_keep_an_action_from_being_published(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.data_dir.mkdir()
    settings.store_path.write_bytes(b"this is no database, by no means" * 100)
    unwaited = msgspec.structs.replace(REQUEST, wait=False)
    assert await asyncio.to_thread(_act.act_on, settings, unwaited, as_json=False) == _exit.OK
    assert capsys.readouterr().out == "a1  stored\n"
