"""Isolated, git-backed workspaces over gRPC: `cove.client` is the client, `cove.<x>.v1` the stubs.

Nothing is imported here, so that the stubs load without the client.
"""
