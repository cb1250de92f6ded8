"""Tests of policies: `sluicegate test DIR`.

`load` reads tests and the policies that they are of, `given` turns what is given into bytes,
`bench` plays them through the real engine in memory, `seen` reads what came out, `expect`
compares, `coverage` counts which rules were shown to act and not to act, `run` goes through
all of it and `report` says how it went. Nothing here opens a socket or reads a clock.
"""
