"""What runs in a warm cell, on the standard library alone: it imports nothing else of ours.

    main ── starts commands, and workers ── spawn
    worker ── runs operations, one after the other ── operations
    frames ── how both talk to the service ── wire (the words of operations)

`main`, `spawn` and `frames` are loaded when a cell starts, which somebody waits for: they
import what the interpreter has built in, and no `typing`, `signal` or `socket`.
"""
