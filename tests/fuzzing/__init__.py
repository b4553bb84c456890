"""The parts of fuzz.py.

What all verbs share: `memory` (random choices, and arrays in every way that memory can lie), `junk` (what has no
business being an argument), `call` (a call, and the judgement of what it did). Then a module of calls for each verb,
with its scenes and its expected numbers; a new verb adds such modules and is named in fuzz.py.
"""
