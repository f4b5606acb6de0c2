"""Requests of the Open Inference Protocol, whatever carries them: what is asked for, checks, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .batcher import Job, join
from .models import ServedModel
from .options import Options
from .refusals import Refusal
from .sessions import SequenceId

#: Types of tensors that are read, by the protocol's names.
DATATYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}

MOST_ID_BYTES = 256
MOST_SEQUENCE_NUMBER = (1 << 64) - 1


@dataclass
class Request:
    """A request to infer.

    Attributes
    ----------
    inputs : by name: the datatype's name and the array, whose shape and contents agree
    outputs : the names that are asked for, none for y alone; True if as binary data, where NaN and infinity may be
    parameters : as given
    prepared : by model; requests that differ in nothing but the data may share them
    """

    inputs: Mapping[str, tuple[str, NDArray[Any]]]
    outputs: Mapping[str, bool]
    parameters: Mapping[str, Any]
    id: str = ""
    binary: bool = True  # y, if no output is named
    prepared: dict[str, Prepared] = field(default_factory=dict)


class Sequence(NamedTuple):
    """A request's place in a sequence: Triton's parameters."""

    id: SequenceId
    start: bool
    end: bool


class Prepared(NamedTuple):
    """What a request asks of a model that it fits, whatever its data.

    Attributes
    ----------
    num_rows, num_steps : B and T of x
    outputs : names, and whether as binary data
    states : whether any of them is a state
    text : whether any of them is JSON
    timeout : seconds, or None
    """

    num_rows: int
    num_steps: int
    outputs: Mapping[str, bool]
    states: bool
    text: bool
    sequence: Sequence | None
    timeout: float | None


def check_shape(name: str, shape: Any) -> tuple[int, ...]:
    """A tensor's shape; Refusal if it is none."""
    if not isinstance(shape, list | tuple) or len(shape) > 8:
        raise Refusal("invalid", f"the shape of {name} is {_short(shape)}, wanted a list of sizes")
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 48:
            raise Refusal("invalid", f"the shape of {name} has {_short(size)}, wanted sizes from 0 up")
    return tuple(shape)


def check_size(name: str, datatype: str, shape: tuple[int, ...], size: int) -> None:
    """Refuse a tensor whose binary data, little-endian, has not the size of its shape."""
    wanted = count_of(shape) * DATATYPES[datatype].itemsize
    if size != wanted:
        raise Refusal("invalid", f"{name} has {size} bytes, wanted {wanted} for the shape {list(shape)}")


def array_of_numbers(name: str, datatype: Any, shape: tuple[int, ...], data: Any) -> NDArray[Any]:
    """A tensor given as numbers, nested or not; all are finite and fit its type."""
    dtype = check_datatype(name, datatype)
    if not isinstance(data, list):
        raise Refusal("invalid", f"the data of {name} is {type(data).__name__}, wanted a list of numbers")
    try:
        numbers = np.array(data)
        if numbers.dtype.kind == "O" and dtype.kind == "f":  # integers beyond 64 bits
            numbers = np.array(data, np.float64)
        kinds = "iuf" if dtype.kind == "f" else "iu"
        if numbers.dtype.kind not in kinds and numbers.size:
            raise ValueError(f"its numbers are of type {numbers.dtype}, wanted {datatype}")
        if _has_flags(data):  # of which NumPy makes 0 and 1
            raise ValueError(f"it has true or false, wanted {datatype}")
        if numbers.shape != shape and numbers.ndim != 1 and numbers.size:
            raise ValueError(f"its shape is {list(shape)}, but the data has {list(numbers.shape)}")
        if numbers.size != count_of(shape):
            raise ValueError(f"its shape is {list(shape)}, but there are {numbers.size} numbers")
        with np.errstate(over="ignore"):
            array = numbers.astype(dtype).reshape(shape)
        if not np.isfinite(array).all():
            raise ValueError("it has NaN, infinity, or a number beyond FP32: send it as binary data")
        if dtype.kind == "i" and (array != numbers.reshape(shape)).any():
            raise ValueError(f"it has a number beyond {datatype}")
    except (ValueError, OverflowError, TypeError) as error:
        raise Refusal("invalid", f"{name} is refused: {_short(error)}") from None
    return array


def _has_flags(data: list[Any]) -> bool:
    kinds = set(map(type, data))
    return bool in kinds or (list in kinds and any(_has_flags(entry) for entry in data if type(entry) is list))


def check_datatype(name: str, datatype: Any) -> np.dtype[Any]:
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Refusal("invalid", f"the datatype of {name} is {_short(datatype)}, wanted one of {', '.join(DATATYPES)}")
    return DATATYPES[datatype]


def count_of(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def prepare(served: ServedModel, request: Request, options: Options) -> Prepared:
    """Check what a request asks for against its model and the limits.

    Raises
    ------
    Refusal
    """
    found = request.prepared.get(served.name)
    if found is None:
        found = request.prepared[served.name] = _prepare(served, request, options)
    return found


def _prepare(served: ServedModel, request: Request, options: Options) -> Prepared:
    outputs = _outputs(served, request)
    sequence, timeout = _sequence(request.parameters), _timeout(request.parameters)
    if sequence is not None and served.pool is None:
        raise Refusal("invalid", f"model {served.name} needs whole sequences, so a request cannot be part of one")
    unknown = [name for name in request.inputs if name not in ("x", "lengths")]
    if unknown:
        raise Refusal("invalid", f"there is an input {_short(unknown[0])!r}, wanted x, and lengths or not")
    if "x" not in request.inputs:
        raise Refusal("invalid", "there is no input x")
    datatype, x = request.inputs["x"]
    wanted = ("INT64", "INT32") if served.num_ids else ("FP32",)
    if datatype not in wanted:
        raise Refusal("invalid", f"the datatype of x is {datatype}, wanted {' or '.join(wanted)}")
    if served.num_ids and x.ndim != 2:
        raise Refusal("invalid", f"x has shape {list(x.shape)}, wanted [B, T]")
    if not served.num_ids and (x.ndim != 3 or x.shape[2] != served.input_size):
        raise Refusal("invalid", f"x has shape {list(x.shape)}, wanted [B, T, {served.input_size}]")
    num_rows, num_steps = x.shape[:2]
    if sequence is not None and num_rows != 1:
        raise Refusal("invalid", f"x has {num_rows} rows, wanted 1 in a sequence")
    if num_rows > options.max_batch_rows:
        raise Refusal("too_large", f"x has {num_rows} rows, more than {options.max_batch_rows}")
    if num_steps > options.max_chunk_steps:
        raise Refusal("too_large", f"x has {num_steps} steps, more than {options.max_chunk_steps}")
    steps = num_rows if served.pools else num_rows * served.output_steps(num_steps)
    if (size := steps * served.output_size * 4) > options.max_body_bytes:
        raise Refusal("too_large", f"y would have {size} bytes, more than {options.max_body_bytes}")
    states = any(name != "y" for name in outputs)
    return Prepared(num_rows, num_steps, outputs, states, not all(outputs.values()), sequence, timeout)


def rows(served: ServedModel, request: Request, prepared: Prepared) -> list[NDArray[Any]]:
    """x of each row, (T, I) or ids (T,).

    Raises
    ------
    Refusal
        Lengths or ids are out of range.
    """
    chunks = list(request.inputs["x"][1])
    if "lengths" in request.inputs:
        lengths = _lengths(request, prepared)
        chunks = [row[:length] for row, length in zip(chunks, lengths, strict=True)]
    if served.stride > 1 and prepared.sequence is not None and len(chunks[0]) % served.stride:
        raise Refusal(
            "invalid", f"there are {len(chunks[0])} steps, wanted a multiple of {served.stride} in a sequence"
        )
    if served.num_ids:
        chunks = [check_ids(served, chunk, f"row {index} of x") for index, chunk in enumerate(chunks)]
    if served.stride > 1 and served.pool is not None:
        chunks = [_whole_strides(chunk, served.stride) for chunk in chunks]
    return chunks


def _whole_strides(chunk: NDArray[Any], stride: int) -> NDArray[Any]:
    """A row, its last step repeated up to a multiple of the stride. No result depends on the steps that are added."""
    missing = -len(chunk) % stride
    return np.concatenate([chunk, *[chunk[-1:]] * missing]) if missing else chunk


def check_ids(served: ServedModel, ids: NDArray[Any], name: str) -> NDArray[np.int64]:
    """The ids of one row as int64; Refusal if one is out of range."""
    bad = (ids < 0) | (ids >= served.num_ids)
    if bad.any():
        step = int(np.argmax(bad))
        raise Refusal("invalid", f"step {step} of {name} is {ids[step]}, wanted ids from 0 to {served.num_ids - 1}")
    return ids.astype(np.int64)


def _outputs(served: ServedModel, request: Request) -> Mapping[str, bool]:
    known = ["y", *served.states]
    for name in request.outputs:
        if name not in known:
            raise Refusal("invalid", f"there is no output {_short(name)!r}, wanted some of {', '.join(known)}")
    return request.outputs or {"y": request.binary}


def _lengths(request: Request, prepared: Prepared) -> list[int]:
    datatype, lengths = request.inputs["lengths"]
    if datatype != "INT64" or lengths.shape != (prepared.num_rows,):
        raise Refusal(
            "invalid",
            f"lengths is {datatype} of shape {list(lengths.shape)}, wanted INT64 of shape [{prepared.num_rows}]",
        )
    numbers: list[int] = lengths.tolist()
    for row, length in enumerate(numbers):
        if not 0 <= length <= prepared.num_steps:
            raise Refusal("invalid", f"lengths[{row}] is {length}, but x has {prepared.num_steps} steps")
    return numbers


def _sequence(parameters: Mapping[str, Any]) -> Sequence | None:
    flags = []
    for name in ("sequence_start", "sequence_end"):
        flag = parameters.get(name, False)
        if not isinstance(flag, bool):
            raise Refusal("invalid", f"{name} is {_short(flag)}, wanted true or false")
        flags.append(flag)
    if "sequence_id" not in parameters:
        if any(flags):
            raise Refusal("invalid", "sequence_start and sequence_end need a sequence_id")
        return None
    sequence_id = parameters["sequence_id"]
    if type(sequence_id) is int and 1 <= sequence_id <= MOST_SEQUENCE_NUMBER:
        return Sequence(sequence_id, *flags)
    try:
        if type(sequence_id) is str and 1 <= len(sequence_id.encode()) <= MOST_ID_BYTES:
            return Sequence(sequence_id, *flags)
    except UnicodeEncodeError:
        pass
    raise Refusal(
        "invalid",
        f"sequence_id is {_short(sequence_id)}, wanted a number from 1 to 2**64 - 1, or a text of 1 to "
        f"{MOST_ID_BYTES} bytes",
    )


def _timeout(parameters: Mapping[str, Any]) -> float | None:
    timeout = parameters.get("timeout")
    if timeout is None:
        return None
    if type(timeout) is not int or not 0 <= timeout < 1 << 63:
        raise Refusal("invalid", f"timeout is {_short(timeout)}, wanted microseconds")
    return timeout * 1e-6 or None  # Triton's 0 is no timeout


def results(served: ServedModel, prepared: Prepared, job: Job) -> dict[str, NDArray[Any]]:
    """The outputs that are asked for, float32."""
    arrays = {}
    for name in prepared.outputs:
        if name == "y":
            arrays[name] = _y(served, prepared, job)
        else:
            parts = [row.state if row.state is not None else served.zero_state() for row in job.rows]
            empty = np.zeros((served.state_parts, 0, served.states[name]), np.float32)
            arrays[name] = np.concatenate([empty, *(part[name][:, None] for part in parts)], axis=1)
    return arrays


def _y(served: ServedModel, prepared: Prepared, job: Job) -> NDArray[Any]:
    rows = [join(row.parts) for row in job.rows]
    if served.pools:
        return np.stack(rows) if rows else np.zeros((0, served.output_size), np.float32)
    steps = served.output_steps(prepared.num_steps)
    if len(rows) == 1 and len(rows[0]) == steps:
        return rows[0][None]
    y = np.zeros((len(rows), steps, served.output_size), np.float32)
    for row, part in zip(y, rows, strict=True):
        row[: len(part)] = part
    return y


def check_finite(served: ServedModel, prepared: Prepared, job: Job) -> None:
    """Refuse results that JSON cannot hold."""
    for name, array in results(served, prepared, job).items():
        if not prepared.outputs[name] and not np.isfinite(array).all():
            raise Refusal("invalid", f"{name} has NaN or infinity: ask for it as binary data")
