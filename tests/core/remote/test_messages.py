"""What goes over the wire comes out as it went in; what is malformed is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastvla_core.errors import MessageError, ObservationError, PolicyError, RemoteError
from fastvla_core.remote import messages, schema
from fastvla_core.types import ActionChunk, ChunkPrefix, Observation
from tests.core.remote.toys import description, observation

INT64 = st.integers(-(2**63), 2**63 - 1)
IMAGES = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
FINITE32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
FINITE64 = st.floats(allow_nan=False, allow_infinity=False)


def sent(message):
    """The message after the way over the wire."""
    return type(message).FromString(message.SerializeToString())


@given(
    stamp=INT64, age=INT64, task=st.text(st.characters(codec="utf-8")),
    images=st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), IMAGES, max_size=3),
    state=arrays.arrays(np.float32, st.integers(0, 9), elements=FINITE32),
)  # fmt: skip
def test_an_observation_comes_out_as_it_went_in(stamp, age, task, images, state):
    before = Observation(
        stamp_ns=stamp, task=task, images=images, state=state, oldest_age_ns=age,
        camera_skew_ns=-age - 1,
    )  # fmt: skip
    after = messages.to_observation(sent(messages.from_observation(before)))
    assert (after.stamp_ns, after.task) == (stamp, task)
    assert (after.oldest_age_ns, after.camera_skew_ns) == (age, -age - 1)
    assert after.state.dtype == np.float32
    assert after.state.tobytes() == state.tobytes()
    assert list(after.images) == list(images)
    for camera, image in images.items():
        assert after.images[camera].shape == image.shape
        assert after.images[camera].tobytes() == image.tobytes()


@given(
    depth=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=FINITE32
    )
)
def test_a_depth_image_comes_out_as_it_went_in(depth):
    before = Observation(
        stamp_ns=1, task="", images={}, state=np.zeros(1, np.float32), depths={"d": depth}
    )
    message = sent(messages.from_observation(before))
    after = messages.to_observation(message).depths["d"]
    assert (after.dtype, after.shape) == (np.float32, depth.shape)
    assert after.tobytes() == depth.tobytes()
    message.depths[0].width += 1
    with pytest.raises(ObservationError, match="depth camera 'd'"):
        messages.to_observation(message)


def test_an_image_that_is_a_view_is_sent_as_it_looks():
    big = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    view = Observation(
        stamp_ns=1, task="", images={"c": big[::2, ::-1]}, state=np.zeros(1, np.float32)
    )
    after = messages.to_observation(sent(messages.from_observation(view)))
    np.testing.assert_array_equal(after.images["c"], big[::2, ::-1])


@given(
    rows=arrays.arrays(
        np.float64, st.tuples(st.integers(0, 9), st.integers(1, 7)), elements=FINITE64
    ),
    dt_s=FINITE64,
)
def test_a_chunk_comes_out_as_it_went_in(rows, dt_s):
    names = tuple("abcdefg"[: rows.shape[1]])
    before = ActionChunk(stamp_ns=5, chunk_id=9, names=names, dt_s=dt_s, positions=rows)
    after = messages.to_chunk(sent(messages.from_chunk(before)), chunk_id=3)
    assert (after.stamp_ns, after.names, after.dt_s, after.chunk_id) == (5, names, dt_s, 3)
    assert after.positions.shape == rows.shape
    assert after.positions.tobytes() == rows.tobytes()


def test_a_prefix_comes_out_as_it_went_in():
    rows = np.random.default_rng(0).normal(size=(3, 2))
    before = ChunkPrefix(names=("a", "b"), positions=rows, frozen=2, conditioning="inpaint")
    after = messages.to_prefix(sent(messages.from_prefix(before)))
    assert (after.names, after.frozen, after.conditioning) == (("a", "b"), 2, "inpaint")
    assert after.positions.tobytes() == rows.tobytes()
    assert messages.from_prefix(None) is None


def test_a_description_comes_out_as_it_went_in():
    before = description(contract={"name": "x", "cameras": {}}, conditionings=("inpaint",))
    assert messages.to_description(sent(messages.from_description(before))) == before
    assert messages.to_description(sent(messages.from_description(description()))) == description()


def test_a_jpeg_is_smaller_and_looks_the_same():
    y, x = np.mgrid[:96, :128]
    image = np.stack([x, y, 255 - x], -1).astype(np.uint8)
    before = Observation(stamp_ns=1, task="", images={"c": image}, state=np.zeros(1, np.float32))
    message = sent(messages.from_observation(before, jpeg_quality=90))
    assert len(message.images[0].data) < image.size / 4
    after = messages.to_observation(message).images["c"]
    assert np.abs(after.astype(int) - image).max() < 12


@pytest.mark.parametrize(
    ("field", "value", "error", "words"),
    [
        ("data", b"\0" * 71, ObservationError, "71 bytes"),
        ("height", 5, ObservationError, "72 bytes"),
        ("encoding", 9, ObservationError, "encoding 9"),
        ("encoding", 1, MessageError, "neither JPEG nor PNG"),
    ],
)
def test_a_malformed_image_names_its_camera(field, value, error, words):
    message = messages.from_observation(observation())
    setattr(message.images[0], field, value)
    with pytest.raises(error, match=words) as raised:
        messages.to_observation(sent(message))
    assert "front" in str(raised.value)


def test_a_jpeg_of_another_size_is_refused():
    message = messages.from_observation(observation(), jpeg_quality=90)
    message.images[0].width += 1
    with pytest.raises(ObservationError, match="announced as"):
        messages.to_observation(sent(message))


def test_what_is_not_finite_or_not_whole_is_refused():
    message = messages.from_observation(observation())
    message.state[0] = float("nan")
    with pytest.raises(ObservationError, match="finite"):
        messages.to_observation(message)
    chunk = schema.message("ActionChunk")(names=["a"], rows=2, positions=[1.0])
    with pytest.raises(PolicyError, match="1 values came for 2 rows"):
        messages.to_chunk(chunk, chunk_id=0)
    chunk.positions.append(float("inf"))
    with pytest.raises(PolicyError, match="inf"):
        messages.to_chunk(chunk, chunk_id=0)


def test_an_error_keeps_its_class_its_words_and_its_mend():
    problem = sent(messages.from_error(ObservationError("no camera", mend="plug it in")))
    error = messages.to_error(problem, where="grpc://there")
    assert type(error) is ObservationError
    assert (error.message, error.mend) == ("grpc://there: no camera", "plug it in")


@pytest.mark.parametrize("kind", ["SystemExit", "annotations", "FastVLA", ""])
def test_a_server_cannot_choose_just_any_class(kind):
    problem = schema.message("Problem")(kind=kind, message="x")
    assert type(messages.to_error(problem, where="there")) is RemoteError


def test_an_error_that_nobody_meant_is_told_with_its_class():
    error = messages.to_error(messages.from_error(KeyError("k")), where="there")
    assert type(error) is RemoteError
    assert "KeyError: 'k'" in error.message


def test_earlier_observations_go_with_the_present_one():
    before = dataclasses.replace(
        observation(3), earlier=(observation(1, state=0.1), observation(2, state=0.2))
    )
    after = messages.to_observation(sent(messages.from_observation(before)))
    assert [past.stamp_ns for past in after.earlier] == [1, 2]
    for past, sent_past in zip(after.earlier, before.earlier, strict=True):
        assert np.array_equal(past.state, sent_past.state)
        assert np.array_equal(past.images["front"], sent_past.images["front"])


def test_a_description_says_which_moments_the_policy_reads():
    before = description(history_s=(0.2, 0.1))
    assert messages.to_description(sent(messages.from_description(before))).history_s == (0.2, 0.1)
