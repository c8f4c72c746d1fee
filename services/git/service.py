"""gRPC face of git: check the request, ask the parts, convert."""

from cove.git.v1.git_pb2_grpc import GitServiceServicer
from services.git.face_branches import BranchesFace
from services.git.face_replicas import ReplicasFace
from services.git.face_source import SourceFace
from services.git.face_worktrees import WorktreesFace


class GitServicer(WorktreesFace, SourceFace, BranchesFace, ReplicasFace, GitServiceServicer):
    """All of them."""
