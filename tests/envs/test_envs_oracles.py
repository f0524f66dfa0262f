"""Oracles: an endpoint with faults, a small model, and answers that are recorded and replayed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import envs
from envs import EnvArgumentError, EnvError
from envs.oracles import EndpointSettings, Enquiry, OracleError, Recorded, TableOracle, make_oracle
from envs.oracles.endpoint import EndpointOracle

KEY = "sk-very-secret-key"
ENQUIRY = Enquiry("guess_my_city", "Paris", "Is it old?", "You are from Paris.")


class Endpoint:
    """A chat completions endpoint on this machine. It answers each request by the next entry of `script`, and then by
    "Yes."

    Entries: "503", "401": this status. "hang": no answer for some time. "garbage", "text", "empty", "null", "none":
    malformed answers.
    """

    def __init__(self) -> None:
        self.script: list[str] = []
        self.asked: list[dict] = []
        self.keys: list[str | None] = []
        self.hanging, self.done = threading.Event(), threading.Event()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                endpoint.keys.append(self.headers["Authorization"])
                said = endpoint.script.pop(0) if endpoint.script else "Yes."
                if said == "hang":
                    endpoint.hanging.set()
                    endpoint.done.wait(10)
                    return
                status = int(said) if said.isdigit() else 200
                text = {"empty": " ", "null": None}.get(said, said)
                choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]
                completion = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
                body = {
                    "garbage": '{"id": "x", "choi',
                    "text": "<html>it works</html>",
                    "none": json.dumps(completion | {"choices": []}),
                }.get(said, json.dumps(completion))
                if status != 200:
                    body = json.dumps({"error": {"message": f"no, {KEY} won't do"}})
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if said == "text" else "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def settings(self, **changes) -> dict:
        return {
            "kind": "openai",
            "model": "m",
            "base_url": self.url,
            "api_key_env": "ORACLE_KEY",
            "retries": 1,
        } | changes

    def close(self) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("ORACLE_KEY", KEY)
    monkeypatch.setattr("envs.oracles.endpoint.FIRST_PAUSE_S", 0.01)
    served = Endpoint()
    yield served
    served.close()


def ask(endpoint: Endpoint, **changes) -> str:
    return EndpointOracle(EndpointSettings(**endpoint.settings(**changes))).answer(ENQUIRY)


def test_the_request_to_an_endpoint(endpoint: Endpoint) -> None:
    endpoint.script = ["It is old."]
    assert ask(endpoint, max_tokens=7) == "It is old."
    (asked,) = endpoint.asked
    assert asked["messages"] == [
        {"role": "system", "content": "You are from Paris."},
        {"role": "user", "content": "Is it old?"},
    ]
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("m", 7, 0.0)
    assert endpoint.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("fault", ["503", "429", "garbage", "text", "empty", "null", "none"])
def test_a_transient_failure_is_retried(endpoint: Endpoint, fault: str) -> None:
    endpoint.script = [fault]
    assert ask(endpoint) == "Yes."
    assert len(endpoint.asked) == 2


def test_a_timeout_is_retried(endpoint: Endpoint) -> None:
    endpoint.script = ["hang"]
    assert ask(endpoint, timeout_s=0.3) == "Yes."
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize(
    ("script", "says", "asked"),
    [
        (["503"] * 9, "status 503", 2),
        (["garbage"] * 9, "an answer that is not JSON to", 2),
        (["text"] * 9, "an answer that is not a completion to", 2),
        (["none"] * 9, "an answer that is not a completion to", 2),
        (["null"] * 9, "an answer that is not a completion to", 2),
        (["empty"] * 9, "an empty answer to", 2),
        (["hang"] * 9, "no answer within 0.2 s, after 2 attempts", 2),
        (["401"], "status 401", 1),
        (["404"], "status 404", 1),
    ],
)
def test_a_permanent_failure_names_the_endpoint_but_not_the_key(
    endpoint: Endpoint, script: list[str], says: str, asked: int
) -> None:
    endpoint.script = script
    with pytest.raises(OracleError, match=says) as error:
        # A short wait only where the endpoint hangs: on busy cores an answer takes longer than that.
        ask(endpoint, timeout_s=0.2 if "hang" in script else 10.0)
    assert endpoint.url in str(error.value)
    assert KEY not in str(error.value)
    assert len(endpoint.asked) == asked
    assert isinstance(error.value, EnvError)


def test_a_closed_port_and_a_missing_key_are_reported(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OracleError, match="no connection"):
        ask(endpoint, base_url="http://127.0.0.1:9/v1", retries=0)
    monkeypatch.delenv("ORACLE_KEY")
    with pytest.raises(OracleError, match="environment variable ORACLE_KEY holds no key"):
        ask(endpoint)
    assert ask(endpoint, api_key_env=None) == "Yes."


def play(env_id: str, option: dict, questions: list[str], oracle: dict) -> list[str]:
    env = envs.make(env_id, oracle=oracle)
    env.reset(seed=0, options=option)
    said = [env.step(question)[0] for question in questions]
    env.close()
    return said


def test_guess_my_city_by_an_endpoint(endpoint: Endpoint) -> None:
    endpoint.script = ["It has\n many bridges.", "Paris, of course!", "Yes, the Paris Opera.", "x" * 9000]
    questions = [
        "How are the bridges?",
        "What city?",
        "Is it known for opera?",
        "Well?",
        "",
        "Is it Rome?",
        "Is it Paris?",
    ]
    said = play("guess_my_city", {"city": "Paris"}, questions, endpoint.settings())
    assert said[:3] == ["It has many bridges.", "I don't know.", "I don't know."]
    assert said[3] == "x" * 400
    assert said[4:] == ["Invalid question.", "No.", "Yes."]
    # The game answers guesses and empty texts without the oracle.
    assert len(endpoint.asked) == 4
    assert all("Paris" in asked["messages"][0]["content"] for asked in endpoint.asked)


def test_twenty_questions_by_an_endpoint(endpoint: Endpoint) -> None:
    endpoint.script = ["Yes, it is.", "NO", "It depends.", "**Yes**"]
    questions = ["Is it good?", "Is it bad?", "Is it ugly?", "Is it an animal?", "???", "Is it a cat?", "Is it a dog?"]
    said = play("twenty_questions", {"word": "dog"}, questions, endpoint.settings())
    assert said == ["Yes.", "No.", "Invalid question.", "Yes.", "Invalid question.", "No.", "Yes."]
    assert len(endpoint.asked) == 4


def test_a_run_is_replayed_without_the_endpoint(endpoint: Endpoint, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "answers.jsonl"
    questions = ["How are the bridges?", "Is it known for \ud800 cats?", "How are the bridges?"]
    endpoint.script = ["Many.", "No cats.", "Other."]
    settings = endpoint.settings(record=str(file))
    assert play("guess_my_city", {"city": "Paris"}, questions, settings) == ["Many.", "No cats.", "Many."]
    assert len(endpoint.asked) == 2
    assert KEY not in file.read_text()
    endpoint.close()
    again = settings | {"replay": True, "api_key_env": None, "base_url": None}
    assert play("guess_my_city", {"city": "Paris"}, questions, again) == ["Many.", "No cats.", "Many."]
    with pytest.raises(
        OracleError, match=r"answers\.jsonl holds no answer of openai:m.* to 'Is it new\?' about 'Paris'"
    ):
        play("guess_my_city", {"city": "Paris"}, ["Is it new?"], again)
    with pytest.raises(OracleError, match="about 'Rome'"):
        play("guess_my_city", {"city": "Rome"}, questions, again)
    with pytest.raises(OracleError, match="of openai:other"):
        play("guess_my_city", {"city": "Paris"}, questions, again | {"model": "other"})
    with pytest.raises(OracleError, match=r"there is no .*nowhere\.jsonl"):
        play("guess_my_city", {"city": "Paris"}, questions, again | {"record": str(tmp_path / "nowhere.jsonl")})


def test_an_incomplete_line_of_recorded_answers_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    count = [0]

    def look_up(enquiry: Enquiry) -> str:
        count[0] += 1
        return f"answer {count[0]}"

    def opened(*, replay: bool = False) -> Recorded:
        return Recorded(TableOracle(look_up), file, replay=replay)

    first, second = ENQUIRY, Enquiry("guess_my_city", "Paris", "Is it new?", "")
    oracle = opened()
    assert [oracle.answer(first), oracle.answer(second), oracle.answer(first)] == ["answer 1", "answer 2", "answer 1"]
    file.write_bytes(file.read_bytes()[:-9] + b"\xff")
    oracle = opened()
    assert [oracle.answer(first), oracle.answer(second)] == ["answer 1", "answer 3"]
    file.write_bytes(file.read_bytes() + b'[]\n"text"\n{"oracle": 1}\n\n')
    oracle = opened(replay=True)
    assert [oracle.answer(first), oracle.answer(second)] == ["answer 1", "answer 3"]
    # Two writers at once: the first recorded answer counts for both.
    one, other = opened(), opened()
    third = Enquiry("guess_my_city", "Paris", "And then?", "")
    assert one.answer(third) != other.answer(third)
    assert opened().answer(third) == one.answer(third)


def test_an_unwritable_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OracleError, match=r"answers\.jsonl"):
        Recorded(TableOracle(lambda _: "Yes."), tmp_path / "file" / "answers.jsonl", replay=False).answer(ENQUIRY)


def test_blocking_oracles_run_off_the_event_loop_and_in_parallel(endpoint: Endpoint) -> None:
    table, asked = envs.make("guess_my_city"), envs.make("guess_my_city", oracle=endpoint.settings(timeout_s=5))
    assert (table.spec.isolation, asked.spec.isolation) == ("inline", "thread")
    assert envs.spec("guess_my_city").isolation == "inline"

    async def two() -> None:
        games = [envs.AsyncEnv(envs.make("guess_my_city", oracle=endpoint.settings(timeout_s=5))) for _ in range(2)]
        for seed, game in enumerate(games):
            await game.areset(seed=seed)
        endpoint.script = ["hang", "Quick."]
        slow = asyncio.ensure_future(games[0].astep("How are you?"))
        assert await asyncio.to_thread(endpoint.hanging.wait, 10)
        quick = await games[1].astep("How are you?")
        assert quick[0] == "Quick."
        assert not slow.done()
        endpoint.done.set()
        await slow
        for game in games:
            await game.aclose()

    asyncio.run(two())


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch = pytest.importorskip("torch")
    from transformers import T5Config, T5ForConditionalGeneration

    from archer.config.sections import TinyModelConfig
    from archer.driver.model import make_tokenizer

    folder = tmp_path_factory.mktemp("t5")
    tokenizer = make_tokenizer(["Is it old? Yes. No.\n" * 20], TinyModelConfig(vocab_size=300))
    tokenizer.save_pretrained(folder)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def test_a_sequence_to_sequence_model_answers(tiny_t5: str) -> None:
    settings = {"kind": "seq2seq", "model": tiny_t5, "max_tokens": 5}
    oracle = make_oracle("guess_my_city", settings, table=lambda _: "never asked")
    assert oracle is make_oracle("guess_my_city", dict(settings), table=lambda _: "never asked")
    assert oracle.blocks
    first = oracle.answer(ENQUIRY)
    assert first == oracle.answer(ENQUIRY)
    assert first != "never asked"
    said = play("guess_my_city", {"city": "Paris"}, ["How old?", "\ud800", "Is it Paris?"], settings)
    assert said[2] == "Yes."
    assert all(said)
    said = play("twenty_questions", {"word": "dog"}, ["Is it old?", "Is it a dog?"], settings)
    assert said[1] == "Yes."


def test_a_missing_model_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(OracleError, match="nowhere' cannot be loaded"):
        play("guess_my_city", {"city": "Paris"}, ["How old?"], {"kind": "seq2seq", "model": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    ("oracle", "says"),
    [
        ("openai", "give a mapping with a kind, one of table, seq2seq, openai"),
        ({}, "give a mapping with a kind"),
        ({"kind": "opanai", "model": "m"}, "did you mean 'openai'"),
        ({"kind": ["openai"]}, "is unknown"),
        ({"kind": "openai"}, "model: Field required"),
        ({"kind": "openai", "model": "m", "timeout": 3}, "did you mean 'timeout_s'"),
        ({"kind": "openai", "model": "m", "timeout_s": 0}, "timeout_s: "),
        ({"kind": "openai", "model": "m", "replay": True}, "set `record`"),
        ({"kind": "seq2seq", "model": "m", "template": "{word}?"}, "cannot be formatted"),
        ({"kind": "seq2seq", "model": "m", "template": "Well?"}, "does not contain {question}"),
        ({"kind": "table", "model": "m"}, "has no 'model'"),
    ],
)
def test_wrong_settings_are_refused_when_the_environment_is_made(oracle: object, says: str) -> None:
    for env_id in ("guess_my_city", "twenty_questions"):
        with pytest.raises(EnvArgumentError, match=says):
            envs.make(env_id, oracle=oracle)


def test_the_table_is_an_oracle_like_any_other() -> None:
    said = play("guess_my_city", {"city": "Paris"}, ["Is it in Europe?", "Hm"], {"kind": "table"})
    assert said == ["Yes.", "Invalid question."]


def test_the_demonstrators_play_with_an_oracle_that_contradicts_the_table(endpoint: Endpoint) -> None:
    for env_id in ("guess_my_city", "twenty_questions_subset"):
        for episode in envs.demonstrate(env_id, episodes=3, skill=0.9, seed=0, oracle=endpoint.settings()):
            assert episode.actions
