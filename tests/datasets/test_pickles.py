"""The restricted unpickler: plain data comes through unchanged, nothing else is executed."""

import collections
import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from amst.datasets.pickles import read_pickle
from amst.errors import AmstError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)
arrays = st_numpy.arrays(
    st.sampled_from(["<f4", "<f8", ">i4", "<i8", "|u1", "|b1", "<U5", ">f4"]),
    st_numpy.array_shapes(min_dims=0, max_dims=3),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("pickles") / "data.pkl"


def reread(path, content):
    path.write_bytes(content)
    return read_pickle(path)


@settings(max_examples=100, deadline=None)
@given(value=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_through_every_protocol(path, value, protocol):
    assert reread(path, pickle.dumps(value, protocol)) == value


@settings(max_examples=100, deadline=None)
@given(value=arrays, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_numpy_arrays_come_through(path, value, protocol):
    content = pickle.dumps({"x": value}, protocol)
    read = reread(path, content)["x"]
    assert read.dtype == pickle.loads(content)["x"].dtype
    np.testing.assert_array_equal(read, value)


def test_numpy_scalars_become_numbers(path):
    value = reread(path, pickle.dumps([np.int64(7), np.float32(0.5), np.bool_(True)]))
    assert value == [7, 0.5, True]
    assert type(value[0]) is int


def test_arrays_of_lists_and_ordered_dicts_come_through(path):
    array = np.empty(2, object)
    array[:] = [[1, 2], "three"]
    value = reread(path, pickle.dumps(collections.OrderedDict(a=array)))
    assert list(value["a"]) == [[1, 2], "three"]


def test_arrays_that_python_2_wrote_come_through(path):
    content = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'i2'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'\\x01\\x00\\xff\\x00'\ntb."
    )
    assert reread(path, content).tolist() == [1, 255]


# what protocol 5 writes arrays with
FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "evil",
    [
        Call(os.system, "touch {mark}"),
        Call(subprocess.check_output, ["touch", "{mark}"]),
        Call(eval, "open('{mark}', 'w')"),
        Call(getattr, [], "append"),
        Call(Path, "{mark}"),
        Call(np.load, "{mark}"),
        Call(np.ndarray, (4,)),
        Call(np.dtype, [("a", "O"), ("b", "i4")]),
        Call(np.dtype, "i4,f8"),
        Call(FROM_BUFFER, b"\0" * 8, np.dtype("O"), (1,), "C"),
        Call(FROM_BUFFER, b"\0" * 8, "i8", (1,), "C"),
        collections.Counter,
    ],
)
def test_what_is_not_plain_data_is_refused_and_not_executed(evil, tmp_path):
    mark = tmp_path / "mark"
    if isinstance(evil, Call):
        function, arguments = evil.call
        evil = Call(function, *(_with_mark(each, mark) for each in arguments))
    with pytest.raises(AmstError, match=r"data.pkl is a pickle that asks for|no complete pickle"):
        reread(tmp_path / "data.pkl", pickle.dumps({"id": evil}))
    assert not mark.exists()


def _with_mark(argument, mark):
    if isinstance(argument, str):
        return argument.replace("{mark}", str(mark))
    return [_with_mark(each, mark) for each in argument] if isinstance(argument, list) else argument


def test_the_refusal_names_what_was_asked_for(path):
    with pytest.raises(AmstError, match=r"asks for (posix|nt)\.system.* It was not executed"):
        reread(path, pickle.dumps(Call(os.system, "true")))


def test_persistent_ids_are_refused(path):
    with pytest.raises(AmstError, match="outside object 'x'"):
        reread(path, b"\x80\x02U\x01xQ.")


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_what_is_no_pickle_is_named(content, path):
    with pytest.raises(AmstError, match=r"data.pkl is no complete pickle"):
        reread(path, content)


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 0.99))
def test_a_truncated_pickle_is_named(path, share):
    content = pickle.dumps({"a": np.arange(10), "b": ["text"] * 5})
    with pytest.raises(AmstError, match=r"data.pkl is no complete pickle"):
        reread(path, content[: int(share * len(content))])


def test_a_missing_pickle_is_named(tmp_path):
    with pytest.raises(AmstError, match=r"no file .*gone.pkl"):
        read_pickle(tmp_path / "gone.pkl")
