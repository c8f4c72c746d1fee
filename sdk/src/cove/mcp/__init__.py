"""Cove for coding agents: a server of the Model Context Protocol, `cove mcp`.

It needs the extra `mcp` of this distribution, and is imported by that command only.
"""
