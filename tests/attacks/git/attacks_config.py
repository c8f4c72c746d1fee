"""Attacks by what git is configured to run."""

from typing import Final

from tests.attacks.git.attack import Attack


def _setting(key: str, value: str = '"$CANARY"', *, attributes: str = "") -> str:
    lines = ["own", f"git config {key} {value}"]
    if attributes:
        lines.append(f"echo '{attributes}' > .gitattributes")
    return "\n".join(lines)


CONFIG: Final = [
    Attack(name="core.fsmonitor", covers=("F1",), script=_setting("core.fsmonitor")),
    Attack(name="a hook", covers=("F2",), script="own; hooks .git/hooks"),
    Attack(
        name="core.hooksPath",
        covers=("F3",),
        script="own; hooks tools/hooks; git config core.hooksPath tools/hooks",
    ),
    Attack(
        name="a textconv",
        covers=("F4", "A7"),
        script=_setting("diff.evil.textconv", attributes="* diff=evil"),
    ),
    Attack(name="diff.external", covers=("F5", "A7"), script=_setting("diff.external")),
    Attack(
        name="a diff driver's command",
        covers=("F6", "A7"),
        script=_setting("diff.evil.command", attributes="* diff=evil"),
    ),
    Attack(
        name="include.path",
        covers=("F7",),
        script="""own
        git config -f tools/config core.fsmonitor "$CANARY"
        git config include.path ../tools/config""",
    ),
    Attack(
        name="gpg.program",
        covers=("F8", "A9"),
        script="own; git config gpg.program ./tools/run; git config commit.gpgSign true",
    ),
    Attack(name="core.editor", covers=("F9",), script=_setting("core.editor")),
    Attack(
        name="core.sshCommand",
        covers=("F10", "A10"),
        script=_setting("core.sshCommand")
        + "\ngit config remote.origin.url ssh://localhost/x; git config ssh.variant ssh",
    ),
    Attack(
        name="remote.uploadpack",
        covers=("F11",),
        script=_setting("remote.origin.uploadpack"),
    ),
    Attack(
        name="a clean filter",
        covers=("F12", "A6"),
        script=_setting("filter.evil.clean", attributes="* filter=evil"),
    ),
    Attack(
        name="a filter process",
        covers=("F13", "A6"),
        script=_setting("filter.evil.process", attributes="* filter=evil"),
    ),
    Attack(
        name="info/attributes",
        covers=("A6",),
        script=_setting("filter.evil.clean")
        + "\nmkdir -p .git/info; echo '* filter=evil diff=evil merge=evil' > .git/info/attributes",
        long=True,
    ),
    Attack(
        name="a filter in the shared configuration",
        covers=("A6",),
        script=_setting("filter.evil.clean", attributes="* filter=evil"),
        worktree=True,
        long=True,
    ),
    Attack(
        name="config.worktree",
        covers=("A4",),
        script="""own
        git config extensions.worktreeConfig true
        git config -f "$(git rev-parse --git-dir)/config.worktree" core.fsmonitor "$CANARY" """,
        worktree=True,
    ),
    Attack(
        name="a hook in the shared directory",
        covers=("A5", "B6"),
        script='own; hooks "$(git rev-parse --git-common-dir)/hooks"',
        worktree=True,
    ),
    Attack(
        name="a merge driver",
        covers=("A8",),
        script="""own
        echo ours > README.md
        git commit -qam Ours
        echo more > src/more
        echo '* merge=evil' > .gitattributes
        git config merge.evil.driver "$CANARY" """,
        after=(("merge", "origin/topic"), ("merge-tree", "--write-tree", "HEAD", "origin/topic")),
    ),
    Attack(
        name="credential.helper",
        covers=("A10",),
        script="""own
        git config credential.helper "!$CANARY"
        git config remote.origin.url "$DOOR" """,
    ),
    Attack(
        name="a remote by ext",
        covers=("A12",),
        script="""own
        git config protocol.ext.allow always
        git config remote.origin.url "ext::sh $PWD/tools/run" """,
    ),
    Attack(
        name="url.insteadOf to ext",
        covers=("A12",),
        script="""own
        git config protocol.ext.allow always
        for any in file:// / https:// ssh://; do
            git config --add "url.ext::sh $PWD/tools/run .insteadOf" "$any"
        done""",
        long=True,
    ),
    Attack(
        name="a promisor by ext",
        covers=("A12", "B4"),
        script="""own
        git config protocol.ext.allow always
        git config core.repositoryFormatVersion 1
        git config extensions.partialClone evil
        git config remote.evil.promisor true
        git config remote.evil.url "ext::sh $PWD/tools/run"
        commit=$(git commit-tree -p HEAD -m Lazy "$(git mktree --missing << TREE
100644 blob 1234567890123456789012345678901234567890	README.md
TREE
        )")
        git update-ref HEAD "$commit" """,
        refused=True,
        long=True,
    ),
    Attack(
        name="a submodule's update command",
        covers=("B4",),
        script="""own
        printf '[submodule "sub"]\\n\\tpath = sub\\n\\turl = -u./tools/run\\n' > .gitmodules
        rmdir sub
        git clone -q . sub
        git config submodule.sub.url "$PWD"
        git config submodule.sub.active true
        git config submodule.sub.update "!$CANARY" """,
        after=(
            ("-C", "sub", "commit", "--allow-empty", "-qm", "x"),
            ("submodule", "update", "--init"),
        ),
        long=True,
    ),
    Attack(
        name="signatures shown by the log",
        covers=("A9",),
        script="""own
        echo '#!/bin/sh' > tools/sign
        echo 'cat > /dev/null' >> tools/sign
        echo 'echo >&2; echo "[GNUPG:] SIG_CREATED x" >&2' >> tools/sign
        echo 'echo "-----BEGIN PGP SIGNATURE-----"' >> tools/sign
        echo 'echo; echo "-----END PGP SIGNATURE-----"' >> tools/sign
        chmod +x tools/sign
        git -c gpg.program=./tools/sign commit -qa -S -m Signed
        git config gpg.program ./tools/run
        git config log.showSignature true
        echo more >> README.md""",
        long=True,
    ),
    Attack(
        name="core.alternateRefsCommand",
        covers=("B5",),
        script="""own
        git clone -q --bare . tools/more
        echo "$PWD/tools/more/objects" >> .git/objects/info/alternates
        git config core.alternateRefsCommand "$CANARY" """,
        long=True,
    ),
]
