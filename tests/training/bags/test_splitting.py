"""Where episodes begin and end: pauses, changes of the task, markers, lists."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastvla_core.errors import BagError, DatasetError
from tests.training.conftest import START_NS
from training.bags.messages import STRING, TASK_OUTCOME, stamp_of, typestore
from training.bags.parts import BagPart
from training.bags.reader import open_bag
from training.bags.splitting import EpisodeSpan, find_episodes, parse_split
from training.bags.storage import TimeRange
from training.bags.writer import EpisodeWriter

S = 1_000_000_000


def message(type_name: str, **fields: Any) -> Any:
    return typestore().types[type_name](**fields)


def outcome(value: int, task: str = "") -> Any:
    header = message("std_msgs/msg/Header", stamp=stamp_of(0), frame_id="")
    return message(TASK_OUTCOME, header=header, task=task, outcome=value, detail="")


@pytest.fixture
def record(tmp_path: Path, contract):
    """A recording of joint states at 10 Hz, with other messages (second, type, topic, message)."""

    def write(
        said: Iterable[tuple[float, str, str, Any]] = (),
        *,
        pauses: Iterable[range] = (),
        instruction: str = "",
        seconds: float = 10.0,
    ) -> Path:
        events: list[tuple[float, Any]] = [
            (k / 10, None) for k in range(round(seconds * 10)) if not any(k in p for p in pauses)
        ]
        events += [(at_s, rest) for at_s, *rest in said]
        names = contract.state_names
        with EpisodeWriter(tmp_path / "bag", contract=contract, instruction=instruction) as writer:
            for at_s, event in sorted(events, key=lambda e: e[0]):
                stamp_ns = START_NS + round(at_s * S)
                if event is None:
                    writer.joint_state(names, stamp_ns=stamp_ns, positions=np.zeros(7))
                else:
                    kind, topic, content = event
                    writer.write(topic, type_name=kind, message=content, stamp_ns=stamp_ns)
        return tmp_path / "bag"

    return write


def spans(path: Path, contract, rule: str) -> list[tuple[float, float, str | None, str | None]]:
    with open_bag(path) as bag:
        found = find_episodes(bag, rule=parse_split(rule), contract=contract)
    return [
        (
            round((e.during.start_ns - START_NS) / S, 3),
            round(min(e.during.end_ns - START_NS, 10 * S) / S, 3),
            e.instruction,
            e.outcome,
        )
        for e in found
    ]


def test_a_pause_of_all_streams_ends_an_episode(record, contract):
    path = record(pauses=[range(30, 50), range(70, 75)], instruction="lift")
    assert spans(path, contract, "gap:1") == [
        (0.0, 2.9, "lift", "unknown"), (5.0, 9.9, "lift", "unknown")
    ]  # fmt: skip
    assert len(spans(path, contract, "gap:0.3")) == 3
    assert len(spans(path, contract, "gap:5")) == 1


def test_a_change_of_the_instruction_ends_an_episode_and_a_repetition_does_not(record, contract):
    def task(at_s: float, text: str):
        return at_s, STRING, "/current_task", message(STRING, data=text)

    said = [task(1, "reach"), task(2, "reach"), task(4, "pick"), task(6, ""), task(8, "place")]
    said += [(3.5, TASK_OUTCOME, "/task_outcome", outcome(1))]
    said += [(5.5, TASK_OUTCOME, "/task_outcome", outcome(2))]
    path = record(said)
    assert spans(path, contract, "instruction") == [
        (1.0, 4.0, "reach", "success"),
        (4.0, 6.0, "pick", "failure"),
        (8.0, 10.0, "place", "unknown"),
    ]
    with pytest.raises(BagError, match="holds no instructions"):
        spans(path, contract, "instruction:elsewhere")


def test_switches_mark_begin_and_end(record, contract):
    kind = "std_msgs/msg/Bool"
    said = [(at_s, kind, "/rec", message(kind, data=on)) for at_s, on in [(1, 1), (3, 0), (5, 1)]]
    path = record(said, instruction="lift")
    assert spans(path, contract, "marker:rec") == [
        (1.0, 3.0, "lift", "unknown"), (5.0, 10.0, "lift", "unknown")
    ]  # fmt: skip


def test_words_mark_begin_end_outcome_and_what_to_throw_away(record, contract):
    words = [(1, "start open the drawer"), (2, "success"), (3, "start"), (4, "discard"),
             (5, "start"), (6, "start"), (7, "failure"), (8, "hello")]  # fmt: skip
    said = [(at_s, STRING, "/mark", message(STRING, data=text)) for at_s, text in words]
    path = record(said, instruction="lift")
    assert spans(path, contract, "marker:/mark") == [
        (1.0, 2.0, "open the drawer", "success"),
        (5.0, 6.0, "lift", "unknown"),
        (6.0, 7.0, "lift", "failure"),
    ]


def test_verdicts_end_what_was_done_since_the_last_one(record, contract):
    said = [(3, TASK_OUTCOME, "/verdict", outcome(1, "reach")),
            (7, TASK_OUTCOME, "/verdict", outcome(2, "pick"))]  # fmt: skip
    found = spans(record(said), contract, "marker:verdict")
    assert [(end, task, how) for _, end, task, how in found] == [
        (3.0, "reach", "success"), (7.0, "pick", "failure")
    ]  # fmt: skip
    assert found[1][0] == 3.0


@pytest.mark.parametrize("seen_by_server", [True, False])
def test_service_calls_mark_episodes_once_each(record, contract, seen_by_server):
    kind = "std_srvs/srv/SetBool_Event"
    request = typestore().types["std_srvs/msg/SetBool_Request"]

    def call(at_s: float, on: bool):
        kinds = (0, 1, 2, 3) if seen_by_server else (0, 3)
        for number, event in enumerate(kinds):
            info = message(
                "service_msgs/msg/ServiceEventInfo", event_type=event, stamp=stamp_of(1),
                client_gid=np.zeros(16, np.uint8), sequence_number=1,
            )  # fmt: skip
            asked = [request(data=on)] if event < 2 else []
            content = message(kind, info=info, request=asked, response=[])
            yield at_s + 0.01 * number, kind, "/episode/_service_event", content

    path = record([*call(1, True), *call(4, False), *call(6, True)], instruction="lift")
    found = spans(path, contract, "marker:/episode")
    assert [(round(a, 1), round(b, 1)) for a, b, *_ in found] == [(1.0, 4.0), (6.0, 10.0)]


def test_a_list_names_ranges_per_recording(record, contract, tmp_path):
    path = record(instruction="lift")
    rows = [
        {"bag": "bag", "start_s": 4, "end_s": 6, "outcome": "success"},
        {"bag": f"{tmp_path.name}/bag", "start_s": 1, "end_s": 2.5, "instruction": "reach"},
        {"bag": "ag", "start_s": 0, "end_s": 9},
    ]
    file = tmp_path / "list.json"
    file.write_text(json.dumps(rows))
    expected = [(1.0, 2.5, "reach", "unknown"), (4.0, 6.0, "lift", "success")]
    assert spans(path, contract, f"ranges:{file}") == expected
    file = tmp_path / "list.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert spans(path, contract, f"ranges:{file}") == expected
    file.write_text(json.dumps(rows[2]))
    with pytest.raises(BagError, match="gives no episode"):
        spans(path, contract, f"ranges:{file}")


@pytest.mark.parametrize(
    "rule", ["gap", "gap:-1", "gap:x", "marker", "bags", "ranges:nowhere.yaml", "bag:1"]
)
def test_rules_that_are_none_are_refused(rule):
    with pytest.raises(DatasetError) as caught:
        parse_split(rule)
    assert caught.value.mend


@pytest.mark.parametrize(
    "text", ["- 3", "[{bag: a, start_s: 1}]", "[{bag: a, start_s: 3, end_s: 2}]", "{a: [}"]
)
def test_broken_lists_are_refused(tmp_path, text):
    file = tmp_path / "list.yaml"
    file.write_text(text)
    with pytest.raises(DatasetError, match="is no list of episodes"):
        parse_split(f"ranges:{file}")


def test_markers_that_are_missing_or_mark_nothing_are_named(record, contract):
    path = record()
    with pytest.raises(BagError, match=r"holds no markers on '/rec'.*joint_states"):
        spans(path, contract, "marker:rec")
    with pytest.raises(BagError, match="which marks no episodes"):
        spans(path, contract, "marker:joint_states")


def test_a_part_is_read_as_if_nothing_else_had_been_recorded(record):
    middle = START_NS + 5 * S
    with open_bag(record(instruction="lift")) as bag:
        parts = [
            BagPart(bag=bag, span=EpisodeSpan(during=during, instruction="reach", outcome=None))
            for during in (TimeRange(end_ns=middle), TimeRange(start_ns=middle))
        ]
        stamps = [[m.stamp_ns for m in part.messages()] for part in parts]
        assert [*stamps[0], *stamps[1]] == [m.stamp_ns for m in bag.messages()]
        assert max(stamps[0]) < middle <= min(stamps[1])
        assert parts[0].instruction == "reach"
