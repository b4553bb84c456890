"""Additions, wrong in every way: the right exception, its whole message, and no byte of any array changed."""

from __future__ import annotations

from hostile import assert_call_refused, refused


@refused("""
TypeError: x must be a NumPy array or a torch CPU tensor, got <class 'list'>
    posenc.add_positions([[1.0] * 8], new(9, 8))
    posenc.add_sinusoidal([[1.0] * 8])
TypeError: x must be float32, float64, float16 or bfloat16 in native byte order, got int64
    posenc.add_positions(new(4, 8, dtype=np.int64), new(9, 8))
    posenc.add_sinusoidal(new(4, 8, dtype=np.int64))
ValueError: x must have a sequence axis and a dim axis, (..., seq, dim); got 1 axes
    posenc.add_positions(new(8), new(9, 8))
    posenc.add_sinusoidal(new(8))
ValueError: seq_axis must not be the last axis of x, which is dim
    posenc.add_positions(x, new(9, 8), seq_axis=3)
    posenc.add_sinusoidal(x, seq_axis=-1)
ValueError: seq_axis 4 is out of bounds for x with 4 axes
    posenc.add_positions(x, new(9, 8), seq_axis=4)
TypeError: seq_axis must be an integer, got <class 'float'>
    posenc.add_positions(x, new(9, 8), seq_axis=1.0)
TypeError: table must be float32, or of the dtype of x, got float64
    posenc.add_positions(x, new(9, 8, dtype=np.float64))
TypeError: table must be float64, or of the dtype of x, got float32
    posenc.add_positions(new(4, 8, dtype=np.float64), new(9, 8))
TypeError: table must be float32, or of the dtype of x, got float16
    posenc.add_positions(new(4, 8, dtype=bfloat16), new(9, 8, dtype=np.float16))
TypeError: table must be float32, or of the dtype of x, got >f4
    posenc.add_positions(x, new(9, 8).astype(swapped(np.float32)))
TypeError: table must be a NumPy array or a torch CPU tensor, got <class 'NoneType'>
    posenc.add_positions(x, None)
ValueError: table must have shape (rows, dim) = (rows, 8), got (9, 7)
    posenc.add_positions(x, new(9, 7))
ValueError: table must have shape (rows, dim) = (rows, 8), got (1, 9, 8)
    posenc.add_positions(x, new(1, 9, 8))
ValueError: table must have shape (rows, dim) = (rows, 8), got (8,)
    posenc.add_positions(x, new(8))
IndexError: position 3 is outside the table, which has rows 0 to 2
    posenc.add_positions(x, new(3, 8), out=x)
IndexError: position 9 is outside the table, which has rows 0 to 8
    posenc.add_positions(x, new(9, 8), positions=[0, 8, 9, 1], out=x)
    posenc.add_positions(x, new(9, 8), positions=[0, 8, 9, 1], padding_idx=8, out=x)
    posenc.add_positions(x, new(9, 8), offset=[0, 6], out=x)
    posenc.position_table_gradient(x, 9, offset=6)
IndexError: position -1 is outside the table, which has rows 0 to 8
    posenc.add_positions(x, new(9, 8), positions=[[0, 1, 2, -1]], out=x)
    posenc.add_positions(x, new(9, 8), offset=-1, padding_idx=-1, out=x)
IndexError: position ... is outside the table, which has rows 0 to -1
    posenc.add_positions(x, new(0, 8))
TypeError: positions that select table rows must be integers, got floats
    posenc.add_positions(x, new(9, 8), positions=[0.0, 1, 2, 3])
    posenc.position_table_gradient(x, 9, positions=[0.0, 1, 2, 3])
ValueError: positions must have shape (seq,) = (4,) or (batch, seq) = (batch, 4), got (3,)
    posenc.add_positions(x, new(9, 8), positions=[0, 1, 2])
    posenc.add_sinusoidal(x, positions=[0, 1, 2])
ValueError: positions must have batch 1 or 2 (the input's first axis), got shape (3, 4)
    posenc.add_positions(x, new(9, 8), positions=[[0, 1, 2, 3]] * 3)
    posenc.add_sinusoidal(x, positions=[[0, 1, 2, 3]] * 3)
ValueError: positions and offset exclude each other: add the offset to the positions
    posenc.add_positions(x, new(9, 8), positions=[0, 1, 2, 3], offset=1)
    posenc.add_sinusoidal(x, positions=[0, 1, 2, 3], offset=1)
ValueError: positions must be finite, with |position| and |position * inv_freq| below 2**31, got nan
    posenc.add_sinusoidal(x, positions=[0, 1, np.nan, 3], out=x)
ValueError: positions must be finite, with |position| and |position * inv_freq| below 2**31, got 2147483648
    posenc.add_sinusoidal(x, offset=2**31 - 3, out=x)
    posenc.sinusoidal_table([2**31], 8)
ValueError: positions must be finite, with ... below 2**31, got an integer of 64 bits or more
    posenc.sinusoidal_table(2**70, 8)
ValueError: table_scale must be finite, got nan
    posenc.add_positions(x, new(9, 8), table_scale=np.nan)
    posenc.add_sinusoidal(x, table_scale=np.nan)
TypeError: table_scale must be a number, got None
    posenc.add_positions(x, new(9, 8), table_scale=None)
TypeError: padding_idx must be an integer, got 1.0
    posenc.add_positions(x, new(9, 8), padding_idx=1.0)
    posenc.sinusoidal_table(4, 8, padding_idx=1.0)
ValueError: padding_idx must be at most 9223372036854775807, got 9223372036854775808
    posenc.add_positions(x, new(9, 8), padding_idx=2**63)
""")
def test_additions(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
BufferError: out is read-only
    posenc.add_positions(x, new(9, 8), out=read_only(2, 3, 4, 8))
    posenc.add_sinusoidal(x, out=read_only(2, 3, 4, 8))
    posenc.sinusoidal_table(4, 8, out=read_only(4, 8))
    posenc.position_table_gradient(x, out=read_only(9, 8))
    posenc.position_table_gradient(x, out=read_only(9, 8), accumulate=True)
ValueError: out must have the shape of x, (2, 3, 4, 8), got (2, 1, 4, 8)
    posenc.add_positions(x, new(9, 8), out=k)
    posenc.add_sinusoidal(x, out=k)
TypeError: out must have the dtype of x, float32, got float64
    posenc.add_positions(x, new(9, 8), out=new(2, 3, 4, 8, dtype=np.float64))
TypeError: out must be a NumPy array or a torch CPU tensor, got <class 'list'>
    posenc.add_positions(x, new(9, 8), out=[x])
ValueError: x and out overlap in memory; they must be the same array or disjoint
    posenc.add_positions(part(0), new(9, 8), out=part(8))
    posenc.add_sinusoidal(part(0), out=part(8))
ValueError: out and table overlap in memory; they must be the same array or disjoint
    posenc.add_positions(part(0), part(0), out=part(0))
    posenc.add_positions(new(4, 8), part(8), out=part(0))
ValueError: out and grad overlap in memory; they must be the same array or disjoint
    posenc.position_table_gradient(part(0), out=part(0))
    posenc.position_table_gradient(part(0), out=part(8), accumulate=True)
ValueError: out stores several elements in the same memory (an expanded or overlapping view); pass an array of its own
    posenc.add_positions(x, new(9, 8), out=as_strided(y, x.shape, (0, 128, 32, 4)))
    posenc.sinusoidal_table(4, 8, out=as_strided(y, (4, 8), (0, 4)))
    posenc.position_table_gradient(x, out=as_strided(y, (9, 8), (4, 4)))
ValueError: out must have shape (4, 8) for these positions and frequencies, got (3, 8)
    posenc.sinusoidal_table(4, 8, out=new(3, 8))
TypeError: out must be float32, as dtype says, got float64
    posenc.sinusoidal_table(4, 8, out=new(4, 8, dtype=np.float64))
TypeError: out must be float32 for this grad
    posenc.position_table_gradient(x, out=new(9, 8, dtype=np.float64))
    posenc.position_table_gradient(new(4, 8, dtype=np.float16), out=new(9, 8, dtype=np.float16))
ValueError: out must have shape (rows, dim) = (rows, 8), got (9, 7)
    posenc.position_table_gradient(x, out=new(9, 7))
ValueError: either rows or out must be given: the size of the table, or the table's gradient
    posenc.position_table_gradient(x)
    posenc.position_table_gradient(x, 9, out=new(9, 8))
ValueError: accumulate=True adds to out, which must be given
    posenc.position_table_gradient(x, 9, accumulate=True)
ValueError: rows must be at least 0, got -1
    posenc.position_table_gradient(x, -1)
""")
def test_outputs(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: dim must be at least 1, got 0
    posenc.sinusoidal_table(4, 0)
    posenc.add_sinusoidal(new(4, 0))
    posenc.timestep_embedding(4, 0)
ValueError: dim must be at most 16777216, got 16777217
    posenc.sinusoidal_table(4, 2**24 + 1)
TypeError: dim must be an integer, got 8.0
    posenc.sinusoidal_table(4, 8.0)
ValueError: convention must be one of 'paper', 'concatenated', 'tensor2tensor', 'fairseq', 'cos_first', 'mlx', 'po...
    posenc.sinusoidal_table(4, 8, convention="bert")
    posenc.add_sinusoidal(x, convention=None)
ValueError: order must be one of 'interleaved', 'sin_cos', 'cos_sin', got 'sin'
    posenc.sinusoidal_table(4, 8, convention=posenc.additive.Convention("sin"))
ValueError: dim must be at least 4 for this convention, got 2
    posenc.add_sinusoidal(new(4, 2), convention="fairseq")
ValueError: dim must be even for this convention, got 7
    posenc.add_sinusoidal(new(4, 7), convention="mlx")
ValueError: base must be positive and finite, got 0
    posenc.sinusoidal_table(4, 8, base=0)
    posenc.add_sinusoidal(x, base=0)
ValueError: precision must be one of 'exact', 'float32', got 'half'
    posenc.sinusoidal_table(4, 8, precision="half")
    posenc.add_sinusoidal(x, precision="half")
TypeError: dtype must be float32 or float64, got float16
    posenc.sinusoidal_table(4, 8, dtype=np.float16)
ValueError: a number of positions must not be negative, got -1
    posenc.sinusoidal_table(-1, 8)
TypeError: flip_sin_to_cos must be True or False, got 1
    posenc.timestep_embedding(4, 8, flip_sin_to_cos=1)
TypeError: timesteps must be integers, float32 or float64, got bool
    posenc.timestep_embedding([True], 8)
ValueError: timesteps must have shape (seq,) or (batch, seq) for frequencies of 1 axis, got ()
    posenc.timestep_embedding(np.float32(3), 8)
ValueError: timesteps must be finite, with |timestep| and |timestep * inv_freq| below 2**31, got nan
    posenc.timestep_embedding([np.nan], 8)
ValueError: timesteps must be finite, with |timestep| and |timestep * inv_freq| below 2**31, got inf
    posenc.timestep_embedding([np.inf], 8)
ValueError: max_period must be positive and finite, got 0
    posenc.timestep_embedding(4, 8, max_period=0)
ValueError: downscale_freq_shift must be finite, got nan
    posenc.timestep_embedding(4, 8, downscale_freq_shift=np.nan)
""")
def test_parameters(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)
