"""A chat model is asked over real HTTP: whatever the server does, nothing is lost, guessed, leaked or asked twice."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from expunge.data import annotations as files
from expunge.data.records import Record
from expunge.errors import MethodError
from expunge.identifiers import Finding, IdentifierError, annotate, build
from tests.identifiers.chatserver import Say, Script, Server, error, serving

openai = pytest.importorskip("openai", reason="needs the extra llm")
RECORD = Record("r0", "What is her father's trade?", "Her father is a florist, a well-known florist in Kuwait.")
FLORIST = Say('{"spans": [{"text": "florist", "occurrence": null}]}')


def settings(server: Server, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"name": "chat", "model": "m", "base_url": server.url, "cache": str(tmp_path / "cache"), "timeout": 30,
            "longest_wait": 0.05, **more}  # fmt: skip


def ask(script: Script, tmp_path: Path, *records: Record, **more: Any) -> tuple[list[Finding], Server]:
    with serving(script) as server:
        identifier = build(settings(server, tmp_path, **more))
        return list(identifier.identify(records or [RECORD])), server


def marked(finding: Finding) -> list[str]:
    return [finding.record.body[span.start : span.end] for span in finding.spans]


def asked_about(request: dict[str, Any]) -> str:
    found = re.search(r"<(answer|passage)>\n(.*)\n</\1>", request["messages"][1]["content"], re.DOTALL)
    assert found is not None
    return found[2]


def test_a_phrase_is_found_at_every_place(tmp_path: Path) -> None:
    (finding,), server = ask(lambda n, asked: FLORIST, tmp_path)
    assert [(span.start, span.end, span.label, span.source) for span in finding.spans] == [
        (16, 23, "unwanted", "chat:m"),
        (38, 45, "unwanted", "chat:m"),
    ]
    request = server.requests[0]
    assert request["model"] == "m"
    assert request["temperature"] == 0
    assert request["max_tokens"] == 1024
    assert request["response_format"]["json_schema"]["schema"]["required"] == ["spans"]
    assert "What is her father's trade?" in request["messages"][1]["content"]
    assert finding.counts == {"requests": 1, "tokens in": 10, "tokens out": 5, "phrases": 1, "not found": 0}


def test_the_second_of_two_is_marked_alone(tmp_path: Path) -> None:
    (finding,), _ = ask(lambda n, asked: Say('{"spans": [{"text": "florist", "occurrence": 2}]}'), tmp_path)
    assert [(span.start, span.end) for span in finding.spans] == [(38, 45)]


def test_what_the_model_makes_up_is_counted_not_guessed(tmp_path: Path) -> None:
    reply = Say('{"spans": ["florist", "gardener", "Kuwaiti", {"text": "Kuwait", "occurrence": 2}]}')
    (finding,), _ = ask(lambda n, asked: reply, tmp_path)
    assert marked(finding) == ["florist", "florist"]
    assert finding.missing == ("gardener", "Kuwaiti", "Kuwait")
    assert finding.counts["phrases"] == 4
    assert finding.counts["not found"] == 3


def test_malformed_replies_are_asked_for_again_with_the_fault(tmp_path: Path) -> None:
    replies = [Say("I am sorry, I cannot."), Say('{"spans": ["flo', finish="length"), FLORIST]
    (finding,), server = ask(lambda n, asked: replies[n], tmp_path)
    assert marked(finding) == ["florist", "florist"]
    assert finding.counts["unreadable replies"] == 2
    assert [len(request["messages"]) for request in server.requests] == [2, 4, 4]
    assert "cut off at max_tokens=1024" in server.requests[2]["messages"][3]["content"]


def test_a_model_that_never_answers_fails_loudly_and_keeps_the_rest(tmp_path: Path) -> None:
    records = [Record(f"r{i}", "Q?", f"Trade {i}: florist.") for i in range(6)]
    out = tmp_path / "a.jsonl"

    def stubborn(number: int, asked: dict[str, Any]) -> Say:
        return Say("no") if "Trade 4" in asked_about(asked) else FLORIST

    with serving(stubborn) as server:
        identifier = build(settings(server, tmp_path, concurrency=1, cache="none"))
        with pytest.raises(IdentifierError, match=r"record 'r4'.*no readable reply in 3 attempts.*no JSON") as raised:
            annotate(records, identifier, out)
        assert "florist" not in str(raised.value)
        assert len(server.requests) == 4 + 3
    with serving(lambda n, asked: FLORIST) as server:
        # The address differs, so it is another identifier; with the same one nothing is asked twice.
        same = build(settings(server, tmp_path, cache="none", concurrency=1))
        assert annotate(records, same, tmp_path / "b.jsonl").new == 6


@pytest.mark.parametrize(
    "trouble",
    [
        Say(status=500, body=error("oops")),
        Say(status=503, body="<html>busy</html>", headers={"Content-Type": "text/html"}),
        Say(status=429, body=error("slow down")),
        Say(cut=True),
        Say(wait=2.5),
        Say(body="<html>welcome</html>", headers={"Content-Type": "text/html"}),
        Say(body="{not json"),
        Say(body='{"choices": []}'),
        Say(body='{"choices": [{"index": 0, "message": null}]}'),
        Say(body="[]"),
    ],
    ids=["500", "503", "429", "cut", "time-out", "html", "no json", "no choice", "no message", "list"],
)
def test_trouble_that_passes_is_waited_out(tmp_path: Path, trouble: Say) -> None:
    slow = {"timeout": 1.5} if trouble.wait else {}
    (finding,), server = ask(lambda n, asked: trouble if n < 2 else FLORIST, tmp_path, **slow)
    assert marked(finding) == ["florist", "florist"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "says", "requests"),
    [
        (Say(status=500, body=error("oops")), r"after 3 tries: HTTP 500: oops", 3),
        (Say(cut=True), r"after 3 tries: the connection failed", 3),
        (Say(wait=1.5), r"after 3 tries: no answer within 0.4 s", 3),
        (Say(status=401, body=error("bad key")), r"HTTP 401: bad key.*key_env", 1),
        (Say(status=404, body=error("no model")), r"model 'm': HTTP 404: no model", 1),
        (Say(status=400, body=error("bad request")), r"HTTP 400: bad request", 1),
        (Say(status=400, body=error("maximum context length is 512")), r"Set window \(characters\) to less", 1),
        (Say(status=429, body=error("pay", code="insufficient_quota")), r"HTTP 429: pay", 1),
        (Say(status=302, headers={"Location": "http://127.0.0.1:9/"}, body=""), r"redirects, which is not followed", 1),
        (
            Say(status=429, body=error("later"), headers={"Retry-After": "3600"}),
            r"wait 3600 s, longest_wait is 0.05",
            1,
        ),
    ],
    ids=["500", "cut", "time-out", "401", "404", "400", "context", "quota", "redirect", "long wait"],
)
def test_trouble_that_stays_is_reported(tmp_path: Path, trouble: Say, says: str, requests: int) -> None:
    with serving(lambda n, asked: trouble) as server:
        identifier = build(settings(server, tmp_path, retries=2, **({"timeout": 0.4} if trouble.wait else {})))
        with pytest.raises(IdentifierError, match=says):
            list(identifier.identify([RECORD]))
        assert len(server.requests) == requests


def test_a_server_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with serving(lambda n, asked: FLORIST) as server:
        gone = settings(server, tmp_path, retries=1)
    with pytest.raises(IdentifierError, match=r"after 2 tries: the connection failed \(ConnectError\)"):
        list(build(gone).identify([RECORD]))


def test_retry_after_is_obeyed_by_everybody(tmp_path: Path) -> None:
    records = [Record(f"r{i}", "Q?", f"Trade {i}: florist.") for i in range(4)]

    def script(number: int, asked: dict[str, Any]) -> Say:
        return Say(status=429, body=error("wait"), headers={"Retry-After": "0.4"}) if number == 0 else FLORIST

    findings, server = ask(script, tmp_path, *records, concurrency=1, longest_wait=5)
    assert len(findings) == 4
    assert server.times[1] - server.times[0] >= 0.4


def test_requests_a_minute_are_kept(tmp_path: Path) -> None:
    records = [Record(f"r{i}", "Q?", f"Trade {i}: florist.") for i in range(5)]
    started = time.monotonic()
    ask(lambda n, asked: FLORIST, tmp_path, *records, concurrency=5, requests_per_minute=600)
    assert time.monotonic() - started >= 0.4


def test_requests_run_side_by_side(tmp_path: Path) -> None:
    records = [Record(f"r{i}", "Q?", f"Trade {i}: florist.") for i in range(8)]
    together = threading.Barrier(4)

    def script(number: int, asked: dict[str, Any]) -> Say:
        together.wait(timeout=20)  # answers only when four requests are there at once
        return FLORIST

    findings, _ = ask(script, tmp_path, *records, concurrency=4)
    assert len(findings) == 8


def test_a_weaker_form_is_asked_for_where_the_server_refuses(tmp_path: Path) -> None:
    def picky(number: int, asked: dict[str, Any]) -> Say:
        form = asked.get("response_format", {}).get("type")
        if "max_tokens" in asked:
            return Say(status=400, body=error("Use 'max_completion_tokens' instead.", param="max_tokens"))
        if form in ("json_schema", "json_object"):
            return Say(status=400, body=error(f"{form} is not supported", param="response_format"))
        return FLORIST

    other = Record("r1", "Q?", "A florist.")
    findings, server = ask(picky, tmp_path, RECORD, other, concurrency=1)
    assert [marked(finding) for finding in findings] == [["florist", "florist"], ["florist"]]
    # max_tokens, schema, object are refused once; both records are then asked without.
    assert len(server.requests) == 5
    assert "response_format" not in server.requests[-1]
    assert server.requests[-1]["max_completion_tokens"] == 1024


def test_a_form_that_was_demanded_is_not_given_up(tmp_path: Path) -> None:
    refusal = Say(status=400, body=error("json_schema is not supported"))
    with pytest.raises(IdentifierError, match="json_schema is not supported"):
        ask(lambda n, asked: refusal, tmp_path, json="schema")


def test_replies_are_cached_by_prompt_model_and_parameters(tmp_path: Path) -> None:
    with serving(lambda n, asked: FLORIST) as server:

        def run(**more: Any) -> Finding:
            (finding,) = build(settings(server, tmp_path, **more)).identify([RECORD])
            return finding

        first = run()
        again = run(concurrency=2, retries=0, timeout=9)
        assert again.spans == first.spans
        assert again.counts == {"from cache": 1, "phrases": 1, "not found": 0}
        assert len(server.requests) == 1
        for more in ({"model": "other"}, {"temperature": 0.5}, {"max_tokens": 50}, {"json": "none"}, {"repeat": 1}):
            run(**more)
        assert len(server.requests) == 6
        for file in (tmp_path / "cache").rglob("*.json"):
            assert file.stat().st_mode & 0o077 == 0
            file.write_text("damaged")
        run()
        assert len(server.requests) == 7


def test_a_long_text_is_cut_with_overlap_and_put_together(tmp_path: Path) -> None:
    sentences = [f"On day {i} the agent met Contact{i} in the old town of Veltria." for i in range(40)]
    record = Record("long", text=" ".join(sentences))

    def script(number: int, asked: dict[str, Any]) -> Say:
        return Say(json.dumps({"spans": [*re.findall(r"Contact\d+", asked_about(asked)), "Veltria"]}))

    (finding,), server = ask(script, tmp_path, record, window=500, overlap=80)
    assert len(server.requests) > 5
    assert all(len(asked_about(request)) <= 500 for request in server.requests)
    expected = [match.group() for match in re.finditer(r"Contact\d+|Veltria", record.text)]
    assert marked(finding) == expected
    assert finding.missing == ()


def test_an_empty_answer_is_not_asked_about(tmp_path: Path) -> None:
    (finding,), server = ask(lambda n, asked: FLORIST, tmp_path, Record("empty", "Q?", ""))
    assert finding.spans == ()
    assert server.requests == []


def test_own_instructions_replace_ours_but_not_the_form(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("Mark only trades.")
    _, server = ask(lambda n, asked: FLORIST, tmp_path, instructions=str(own))
    system = server.requests[0]["messages"][0]["content"]
    assert system.startswith("Mark only trades.\n")
    assert '{"spans": [{"text"' in system
    with_own, without = (build({"name": "chat", "model": "m", "instructions": text}) for text in (str(own), ""))
    assert with_own.facts() != without.facts()


def test_an_estimate_counts_what_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import expunge.identifiers.chat as chat
    from expunge.identifiers.address import Address

    with serving(lambda n, asked: FLORIST) as server:
        identifier = build(settings(server, tmp_path, price_in=1000.0, price_out=2000.0))
        assert identifier.estimate([RECORD]) is None  # on this machine: nobody is paid
        far = Address(server.url, "https://far.example", "far.example", False)
        monkeypatch.setattr(chat, "address", lambda url, insecure: far)
        estimate = identifier.estimate([RECORD])
        assert estimate is not None
        assert (estimate.requests, estimate.cached) == (1, 0)
        assert 300 < estimate.tokens_in < 700
        # The answer has 56 characters, 16 tokens: 20 + 8 are expected back.
        assert estimate.tokens_out == 28
        assert estimate.cost == pytest.approx((estimate.tokens_in * 1000 + 28 * 2000) / 1e6)
        monkeypatch.undo()
        list(identifier.identify([RECORD]))
        monkeypatch.setattr(chat, "address", lambda url, insecure: far)
        estimate = identifier.estimate([RECORD])
        assert estimate is not None
        assert (estimate.requests, estimate.cached) == (0, 1)


def test_the_reader_may_stop_reading(tmp_path: Path) -> None:
    records = [Record(f"r{i}", "Q?", f"Trade {i}: florist.") for i in range(20)]
    with serving(lambda n, asked: Say(FLORIST.text, wait=0.0 if n < 2 else 10)) as server:
        findings: Iterator[Finding] = build(settings(server, tmp_path)).identify(records)
        next(findings)
        started = server.times[-1]
        findings.close()  # type: ignore[attr-defined]
        assert time.monotonic() - started < 8
        assert len(server.requests) < 20


def test_the_whole_way_to_a_file(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with serving(lambda n, asked: FLORIST) as server:
        identifier = build(f"chat:model=m,base_url={server.url}", [f"cache={tmp_path / 'cache'}"])
        summary = annotate([RECORD], identifier, out)
    assert summary.counts["phrases"] == 1
    (annotation,) = files.read(out)
    assert [(span.start, span.end) for span in annotation.spans] == [(16, 23), (38, 45)]


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("chat", MethodError, "needs the setting 'model'"),
        ("chat:model=m,key_env=sk-secret123", MethodError, "NAME of an environment variable"),
        ("chat:model=m,overlap=4000", MethodError, "more than half"),
        ("chat:model=m,base_url=ftp://x/", IdentifierError, "no web address"),
        ("chat:model=m,base_url=https://u:p@x/v1", IdentifierError, "user name, a password"),
        ("chat:model=m,base_url=https://x/v1?key=1", IdentifierError, "a query"),
        ("chat:model=m,temprature=1", MethodError, "Did you mean: temperature"),
    ],
)
def test_settings_that_cannot_work_are_refused(spec: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        build(spec)
    assert "sk-secret123" not in str(raised.value)
