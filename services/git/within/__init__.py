"""What runs inside a git cell: it sees one worktree and may be wrong about nothing else.

Standard library only, and nothing else of the project: it is run from a read-only copy, by an
interpreter without site packages. What it answers is not believed by those outside.
"""
