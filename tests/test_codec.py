"""What the stages make, as bytes and back."""

import json
import math

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fingerprint_dagster.codec import decode, encode, sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Component, Sketch, Value

DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()  # noqa: SIM905

arrays = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in DTYPES]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
names = st.text(max_size=20).filter(lambda name: name != "__metadata__")
infos = st.dictionaries(
    st.text(max_size=10),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


def assert_same(one: np.ndarray, other: np.ndarray) -> None:
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tobytes() == other.tobytes()


@given(st.dictionaries(names, arrays, max_size=4), infos)
@example({}, {})
@example({"": np.zeros((0, 3))}, {"": None})
def test_a_value_comes_back_as_it_was(given_arrays: dict[str, np.ndarray], info: dict[str, object]) -> None:
    value = decode(encode(Value(given_arrays, info)))
    assert value.info == info
    assert value.arrays.keys() == given_arrays.keys()
    for name, array in given_arrays.items():
        assert_same(value.arrays[name], array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_an_array_in_memory_does_not_matter(dtype: str) -> None:
    whole = np.arange(24).reshape(4, 6).astype(dtype)
    for view in (whole.T, whole[::2, ::-3], np.asfortranarray(whole), whole.astype(whole.dtype.newbyteorder())):
        back = decode(encode(Value({"a": view}))).arrays["a"]
        assert back.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(back, view)


def test_numbers_that_are_not_finite_come_back() -> None:
    array = np.array([math.nan, math.inf, -math.inf, -0.0])
    assert_same(decode(encode(Value({"a": array}))).arrays["a"], array)


def test_equal_values_have_equal_bytes() -> None:
    value = Value({"b": np.arange(3), "a": np.ones((2, 2), np.float32)}, {"x": 1})
    assert encode(value) == encode(Value(dict(value.arrays), dict(value.info)))


def test_the_bytes_are_a_safetensors_file_with_the_info_in_its_metadata() -> None:
    data = encode(Value({"a": np.arange(3, dtype=np.int16)}, {"title": "Größe"}))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["a"]["dtype"] == "I16"
    assert header["a"]["shape"] == [3]
    assert json.loads(header["__metadata__"]["info"]) == {"title": "Größe"}


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an encoded value"):
        decode(data)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{}",
        b"null",
        b'{"__metadata__":null}',
        b'{"__metadata__":{"info":"{"}}',
        b'{"__metadata__":{"info":"3"}}',
    ],
)
def test_safetensors_files_of_others_are_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match="not an encoded value"):
        decode(len(header).to_bytes(8, "little") + header)


@given(st.dictionaries(names, arrays, max_size=6), infos)
def test_the_bytes_are_those_of_the_safetensors_library(
    given_arrays: dict[str, np.ndarray], info: dict[str, object]
) -> None:
    ordered = {name: np.asarray(array, order="C") for name, array in given_arrays.items()}
    text = json.dumps(info, ensure_ascii=False, separators=(",", ":"))
    assert encode(Value(given_arrays, info)) == safetensors.numpy.save(ordered, {"info": text})


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1j]), np.array(["2020-01-01"], "datetime64[D]")])
def test_arrays_that_the_format_does_not_have_are_refused(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="which safetensors does not have"):
        encode(Value({"a": array}))


def test_bytes_cut_short_are_refused() -> None:
    data = encode(Value({"a": np.arange(10), "b": np.ones(3)}, {"x": [1, 2]}))
    for length in range(len(data)):
        with pytest.raises(ValueError, match="not an encoded value"):
            decode(data[:length])


@given(st.data())
def test_a_flipped_bit_in_the_header_is_refused_or_harmless_to_the_reader(data: st.DataObject) -> None:
    good = encode(Value({"a": np.arange(4, dtype=np.uint8)}, {"x": "y"}))
    bit = data.draw(st.integers(0, 8 * (len(good) - 4) - 1))
    damaged = bytearray(good)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        value = decode(bytes(damaged))
    except ValueError:
        return
    assert isinstance(value, Value)


@given(
    st.lists(
        st.builds(
            Component,
            st.text(min_size=1, max_size=20),
            st.sampled_from(["hamming", "signs", "cosine", "tokens", "data"]),
            arrays,
            st.none() | arrays,
            st.none() | arrays,
            st.none() | arrays,
        ),
        max_size=4,
        unique_by=lambda component: component.algorithm,
    ),
    infos,
)
def test_a_sketch_comes_back_as_it_was(components: list[Component], info: dict[str, object]) -> None:
    sketch = value_to_sketch(decode(encode(sketch_to_value(Sketch(tuple(components), info)))))
    assert sketch.info == info
    assert [(c.algorithm, c.kind) for c in sketch.components] == [(c.algorithm, c.kind) for c in components]
    for back, component in zip(sketch.components, components, strict=True):
        for part in ("values", "positions", "searchable", "asked"):
            one, other = getattr(back, part), getattr(component, part)
            assert (one is None) == (other is None)
            if other is not None:
                assert_same(one, other)
