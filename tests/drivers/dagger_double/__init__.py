"""A Dagger engine and its CLI, doubled: processes that the real SDK talks to.

It models the rules that a caller depends on: lazy values; one cache, by what is called on what;
identical calls in flight are one; names are integers, which a cold engine gives anew; results that
outlive their session and those that do not; commands that end by a signal leave nothing; a limit
of layers; text that is no UTF-8 is lost; live output only where a trace was asked for; sessions
that an engine forgot when it restarted. Every query is validated against the schema of the
installed SDK. Commands really run, in bubblewrap, on this host's /usr.

It cannot prove that an engine behaves as it does: real snapshots, images, registries, garbage
collection, runc, time, and the bytes of telemetry are not here.
"""
