# The image of one service, which SERVICE names: registry, git, provider, executor, gateway or launcher.
#
# BASE is any Debian-like system with Python 3.11 or newer and its venv module. A network without a registry makes one
# itself, see docs/compose.md.
ARG BASE=python:3.12-slim-bookworm
ARG SERVICE

FROM ${BASE} AS wheels
WORKDIR /build
# Wheels in deploy/wheels are taken instead of an index.
COPY requirements-server.lock deploy/wheels/ wheels/
RUN python3 -m venv pip && python3 -m venv --without-pip /opt/cove && cd wheels \
 && if ls ./*.whl > /dev/null 2>&1; then given="--no-index --find-links ."; fi \
 && ../pip/bin/pip download --no-cache-dir --require-hashes --only-binary :all: ${given} \
    -d ../checked -r requirements-server.lock

# What all servers share. Only what passed the hashes of the lock is left to choose from.
FROM wheels AS kit
COPY LICENSE pyproject.toml deploy/image/packages.py ./
RUN pip/bin/pip --python /opt/cove/bin/python install --no-cache-dir --no-index --find-links checked \
    $(python3 packages.py server)
COPY sdk sdk
COPY agent agent
COPY cove_server cove_server
COPY gateway gateway
COPY servicekit servicekit
COPY services services
# The command `up` goes, as an image has nothing to bring up.
RUN pip/bin/pip install --no-cache-dir --no-index --find-links checked --no-deps --target code ./sdk . \
 && rm code/cove_server-*.dist-info/entry_points.txt

# What only this service has: code that others lack, and so cannot import, and packages of its own.
FROM kit AS own
ARG SERVICE
COPY deploy/image ./
# The web console is in the gateway's image where `make console` built one before; nothing fails without.
COPY LICENSE .build/consol[e] console/
RUN python3 packages.py "${SERVICE}" > own.txt \
 && pip/bin/pip --python /opt/cove/bin/python install --no-cache-dir --no-index --find-links checked \
    --root own -r own.txt
RUN into="/build/own$(echo /opt/cove/lib/python3*/site-packages)" && mkdir -p "${into}" own/opt/cove/bin && cd code \
 && server="servicekit buf cove/__init__.py cove/errors cove/options" \
 && tool="${server} services/__init__.py services/${SERVICE} cove/mount cove/${SERVICE} $(echo cove_server-*.dist-info)" \
 && case "${SERVICE}" in \
      launcher) cp -a --parents agent "${into}" ;; \
      registry) cp -a --parents ${tool} "${into}" ;; \
      git | provider | executor) cp -a --parents ${tool} agent "${into}" ;; \
      gateway) cp -a --parents ${server} cove ./*.dist-info gateway "${into}" && cp ../cove ../own/opt/cove/bin \
        && cp -a ../console ../own/opt/cove ;; \
    esac && cd .. \
 && if [ "${SERVICE}" = launcher ]; then cp launcher_healthy.py own/opt/cove/healthy.py; \
    else cp healthy.py own/opt/cove; fi

FROM ${BASE} AS system
# The directories are made here so that a fresh volume is private; /run/visible is for the second /proc.
RUN install -d -m 0700 /var/lib/cove /run/cove && install -d /srv/repositories /run/visible
ENV PATH=/opt/cove/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    COVE_STATE=/var/lib/cove COVE_RUNTIME=/run/cove PYTHONUNBUFFERED=1 TINI_SUBREAPER=1
WORKDIR /

FROM system AS server
COPY --from=kit /opt/cove /opt/cove

# The launcher is of the standard library alone: its environment has nothing in it yet.
FROM system AS launcher
COPY --from=wheels /opt/cove /opt/cove
CMD ["python", "-m", "agent.launcher", "--runtime", "/run/cove", "--state", "/var/lib/cove", "--stop-sandboxes"]

FROM server AS registry
CMD ["python", "-m", "services.registry"]

FROM server AS git
CMD ["python", "-m", "services.git"]

FROM server AS provider
CMD ["python", "-m", "services.provider"]

FROM server AS executor
CMD ["python", "-m", "services.executor"]

FROM server AS gateway
CMD ["python", "-m", "gateway"]

FROM ${SERVICE}
ARG SERVICE
# No other service needs more than a base has. A base that has these too is left alone, so that no network is needed.
# What programs in workspaces find in /usr is the launcher's.
RUN case "${SERVICE}" in git) want="ca-certificates git openssh-client" ;; launcher) want="git" ;; esac \
 && if ! dpkg-query --show ${want} > /dev/null 2>&1; then apt-get update \
 && apt-get install -y --no-install-recommends ${want} && rm -rf /var/lib/apt/lists/*; fi
COPY --from=own /build/own /
