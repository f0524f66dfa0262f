"""Settings that would deadlock are refused, and the limiter blocks the side it should."""

import asyncio
import json
import logging

import pytest
from pydantic import ValidationError

from buffer.config import ReplayConfig, ViewLimit
from buffer.limiter.actor import LimiterActor
from buffer.limiter.limiter import Limiter
from buffer.log.folders import begin
from buffer.telemetry.endpoint import Exposure


def counts(inserted: int, held: int | None = None) -> dict[str, int]:
    held = inserted if held is None else held
    return {"episodes": held, "turns": 2 * held, "inserted_episodes": inserted, "inserted_turns": 2 * inserted}


NOTHING = counts(0)


def limited(**limit) -> ReplayConfig:
    """With this limiter of the critic's view."""
    return ReplayConfig(critic=limit)


def test_deadlock_is_refused_with_the_reason_and_the_remedy():
    with pytest.raises(ValidationError, match=r"would deadlock: inserts stop at 26 turns.*error_buffer to 400"):
        limited(samples_per_insert=4, min_turns=100, error_buffer=100)
    limited(samples_per_insert=4, min_turns=100, error_buffer=400)
    limited(samples_per_insert=4, min_turns=100)


def test_the_refusal_is_tight():
    """At the smallest admitted error_buffer single-turn inserts reach min_turns; below it they do not."""
    for ratio, minimum in ((0.5, 7), (1.0, 3), (2.5, 10)):
        admitted = []
        for buffer in range(40):
            try:
                config = limited(samples_per_insert=ratio, min_turns=minimum, error_buffer=buffer)
            except ValidationError:
                config = limited(samples_per_insert=ratio, min_turns=1, error_buffer=buffer)
                inserted = 0
                while inserted * ratio <= config.critic.allowed_error:
                    inserted += 1
                assert inserted < minimum
                continue
            admitted.append(buffer)
            inserted = 0
            while inserted < minimum:
                assert inserted * ratio <= config.critic.allowed_error
                inserted += 1
        assert admitted


def test_capacity_below_min_turns_and_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match=r"actor\.min_turns=50 exceeds capacity_turns=40"):
        ReplayConfig(actor={"min_turns": 50}, capacity_turns=40)
    with pytest.raises(ValidationError, match="shard_count"):
        ReplayConfig(shard_count=3)
    with pytest.raises(ValidationError, match="durability"):
        ReplayConfig(durability="disk")


def test_every_field_is_described():
    for name, field in (ReplayConfig.model_fields | ViewLimit.model_fields).items():
        assert (field.description or "").endswith("."), name


def test_each_side_blocks_when_it_runs_ahead():
    limiter = Limiter(limited(samples_per_insert=2, min_turns=10, error_buffer=20))
    assert "0 turns inserted, critic.min_turns=10" in limiter.sample_block("critic")
    assert limiter.insert_block() is None
    limiter.report(0, "a", counts(5), NOTHING)  # 10 turns: 10 * 2 - 0 = 20, not above the buffer
    assert limiter.insert_block() is None
    assert limiter.sample_block("critic") is None
    limiter.report(1, "a", counts(1), NOTHING)
    assert "inserting waits for sampling: 12 turns inserted, 0 sampled of the critic view" in limiter.insert_block()
    limiter.sampled["critic"] = 44  # 44 - 24 = 20
    assert limiter.sample_block("critic") is None
    assert limiter.insert_block() is None
    limiter.sampled["critic"] = 45
    assert "sampling waits for inserting: 12 turns inserted, 45 sampled of the critic view" in limiter.sample_block(
        "critic"
    )


def test_each_view_has_a_limiter_of_its_own():
    views = {"critic": {"samples_per_insert": 4}, "actor": {"samples_per_insert": 1, "error_buffer": 10}}
    limiter = Limiter(ReplayConfig(**views))
    limiter.report(0, "a", counts(5), NOTHING)
    limiter.sampled["actor"] = 21
    assert "10 turns inserted, 21 sampled of the actor view; actor.samples_per_insert=1" in limiter.sample_block(
        "actor"
    )
    assert limiter.sample_block("critic") is None
    limiter.report(0, "a", counts(16), NOTHING)
    assert limiter.sample_block("actor") is None
    assert "32 turns inserted, 21 sampled of the actor view" in limiter.insert_block()
    limiter.sampled["critic"] = 4200
    assert "4200 sampled of the critic view" in limiter.sample_block("critic")
    assert limiter.sampled_turns == 4221
    # The inserts that one view admits before its first sample must suffice for the other view.
    with pytest.raises(
        ValidationError, match=r"stop at 11 turns \(actor\.error_buffer=10.*waits for critic\.min_turns=20"
    ):
        ReplayConfig(critic={"min_turns": 20}, actor={"samples_per_insert": 1, "error_buffer": 10})


def test_without_a_ratio_only_the_minimum_holds():
    limiter = Limiter(limited(min_turns=4))
    limiter.report(0, "a", counts(1), NOTHING)
    assert limiter.sample_block("critic") is not None
    limiter.report(0, "a", counts(1000), NOTHING)
    limiter.sampled["critic"] = 10**9
    assert limiter.sample_block("critic") is None
    assert limiter.insert_block() is None


def test_counts_survive_restarts_and_late_reports():
    limiter = Limiter(ReplayConfig())
    limiter.report(0, "a", counts(10), NOTHING)
    limiter.report(0, "a", counts(8), NOTHING)  # a report that arrives late
    assert limiter.inserted_episodes == 10
    assert limiter.report(0, "b", counts(10), counts(10)) == 0  # restarted from its log
    assert limiter.inserted_turns == 20
    assert limiter.report(0, "c", counts(1), NOTHING) == 10  # restarted without a log, and inserted one
    limiter.report(0, "c", counts(3), NOTHING)
    assert (limiter.inserted_episodes, limiter.inserted_turns) == (13, 26)
    assert limiter.shards[0].episodes == 3
    other = Limiter(ReplayConfig())
    other.load_state_dict(limiter.state_dict())
    assert other.inserted_episodes == 13
    assert other.state_dict() == limiter.state_dict()


def test_a_blocked_side_is_logged_then_released_or_timed_out(tmp_path, caplog):
    """The class of the actor, without Ray."""
    config = ReplayConfig(critic={"samples_per_insert": 1, "min_turns": 4, "error_buffer": 8}, blocked_warning_s=0.05)

    begin(tmp_path, 0)

    async def scenario():
        limiter = LimiterActor(config, tmp_path, "replay", Exposure("127.0.0.1"))
        blocked = asyncio.create_task(limiter.await_sample("critic", 3, 10.0, "learner"))
        await asyncio.sleep(0.2)
        assert not blocked.done()
        assert await limiter.report(0, "life-1", counts(5), NOTHING) == 0
        assert await blocked is None
        assert await limiter.await_insert(1.0, "worker-3") is None
        await limiter.report(0, "life-1", counts(6), NOTHING)
        refused = await limiter.await_insert(0.2, "worker-3")
        assert refused.startswith(
            "worker-3: inserting waits for sampling: 12 turns inserted, 3 sampled of the critic view"
        )
        assert refused.endswith("gave up after 0.2 s")
        assert await limiter.report(0, "life-2", counts(2), counts(2)) == 4
        await limiter.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    messages = [record.getMessage() for record in caplog.records]
    assert any("learner: blocked for" in m and "sampling waits for inserting" in m for m in messages)
    assert any("worker-3: blocked for" in m and "inserting waits for sampling" in m for m in messages)
    assert json.loads((tmp_path / "limiter.json").read_text())["sampled"] == {"critic": 3, "actor": 0}
