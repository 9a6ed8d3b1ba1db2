"""Files of measurements replayed through a whole node: what the store says of them is what pandas says."""

from __future__ import annotations

import math
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.nodes import eventually_true

from polaris.runtime import Node, Settings, load_settings

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import _nab

BEGUN = datetime(2014, 4, 1, tzinfo=UTC)
SEED = 20_140_401


def lines(seed: int, count: int) -> list[str]:
    """A series in the shape of the benchmark's files: five minutes apart, daily waves, noise, spikes, huge and tiny."""
    source = random.Random(seed)
    scale = 10.0 ** source.uniform(-3, 9)
    moment, written = BEGUN + timedelta(seconds=source.randrange(300)), []
    for number in range(count):
        value = scale * (2 + math.sin(number / 288 * math.tau) + source.gauss(0, 0.2))
        if source.random() < 0.01:
            value *= source.uniform(5, 50)
        kind = source.random()
        if kind < 0.02:
            text = ""
        elif kind < 0.04:
            text = str(round(value))
        else:
            text = repr(value)
        written.append(f"{moment:%Y-%m-%d %H:%M:%S},{text}")
        # Now and then a timestamp comes twice, and now and then hours are left out.
        step = source.random()
        moment += timedelta(0) if step < 0.01 else timedelta(hours=5) if step < 0.015 else timedelta(minutes=5)
    return written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of such files; one of them is out of order."""
    folder = tmp_path / "files"
    for number in range(5):
        written = lines(SEED + number, 1500)
        if number == 4:
            random.Random(SEED).shuffle(written)
            written = list(dict.fromkeys(line.split(",")[0] for line in written))
            written = [f"{stamp},{number}.5" for number, stamp in enumerate(written)]
        file = folder / f"kind{number % 2}" / f"series {number}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(["timestamp,value", *written]) + "\n")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "polaris.toml"
    config.write_text('[node]\ndata_dir = "data"\n[http]\nenabled = false\n[systems]\n')
    return load_settings(config, environment={}, overrides={"node.data_dir": str(tmp_path / "data")})


@pytest.mark.parametrize("publish", [_nab.publish_in_batches, _nab.publish_one_by_one])
async def test_a_replay_is_stored_as_pandas_would_have_it(publish: object, folder: Path, settings: Settings) -> None:
    from polaris.messaging import PolarisMessageBus
    from polaris.storage import PolarisDataStore

    assert callable(publish)
    replay = _nab.read_folder(folder)
    assert len(replay) == 5
    async with Node(settings) as node:
        assert node.container is not None
        bus = await node.container.aresolve(PolarisMessageBus)
        assert await publish(bus, replay) == sum(map(len, replay.values()))
        async with PolarisDataStore.sqlite(settings.store_path, read_only=True) as store:

            async def everything_is_stored() -> bool:
                return not (await _nab.compare(store, replay)).differences

            await eventually_true(everything_is_stored, "the store says what pandas says")
            comparison = await _nab.compare(store, replay)
    assert comparison.differences == []
    assert comparison.worst <= _nab.RELATIVE_TOLERANCE
    assert comparison.numbers == 7 * comparison.buckets
    assert comparison.buckets > 500


async def test_the_comparison_notices_a_single_wrong_value(folder: Path) -> None:
    from polaris.storage import PolarisDataStore

    replay = _nab.read_folder(folder)
    async with PolarisDataStore.memory() as store:
        for events in _nab.rounds(replay):
            await store.states.save_many([event.system_state for event in events])
        assert (await _nab.compare(store, replay)).differences == []
        system_id, samples = next(iter(replay.items()))
        index = next(number for number, sample in enumerate(samples) if sample.value is not None)
        spoilt = samples[index]._replace(value=(samples[index].value or 0.0) * (1 + 1e-7))
        await store.states.save(_nab.telemetry(system_id, spoilt).system_state)
        assert (await _nab.compare(store, replay)).differences


def test_a_folder_without_files_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no CSV file is below"):
        _nab.read_folder(tmp_path)
    (tmp_path / "odd.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match="expected the columns timestamp,value, found a,b"):
        _nab.read_folder(tmp_path)
