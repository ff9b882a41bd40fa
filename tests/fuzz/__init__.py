"""What strangers may send, fuzzed: each target reads bytes and may only fail in the ways it declares.

``python -m tests.fuzz TARGET --seconds 60`` looks for new inputs, guided by the code that they reach;
``tests/fuzz/corpus/TARGET`` holds those worth keeping, and the suite replays them.
"""
