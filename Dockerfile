# One image for all processes; the command says which one a container is.
#
# BASE is any Debian-like system with Python 3.11 or newer and its venv module. A network without a registry makes one
# itself, see docs/operations.md.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE} AS base
# The official images of Python have neither; a base that has both is left alone, so that no network is needed.
RUN { command -v git && command -v ssh; } > /dev/null || { apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git openssh-client \
 && rm -rf /var/lib/apt/lists/*; }

FROM base AS build
WORKDIR /build
# Wheels in deploy/wheels are taken instead of an index.
COPY requirements-server.lock deploy/wheels/ wheels/
RUN python3 -m venv /opt/cove && cd wheels \
 && if ls ./*.whl > /dev/null 2>&1; then given="--no-index --find-links ."; fi \
 && /opt/cove/bin/pip download --no-cache-dir --require-hashes --only-binary :all: ${given} -d checked -r requirements-server.lock
# Only what passed the hashes of the lock is left to choose from; of that, what runs is installed.
COPY LICENSE pyproject.toml ./
COPY sdk sdk
COPY agent agent
COPY cove_server cove_server
COPY gateway gateway
COPY servicekit servicekit
COPY services services
RUN /opt/cove/bin/pip install --no-cache-dir --no-index --find-links wheels/checked ./sdk . \
 && /opt/cove/bin/pip uninstall -y -q pip setuptools
COPY deploy/compose/healthy.py /opt/cove/healthy.py

FROM base
COPY --from=build /opt/cove /opt/cove
# The directories are made here so that a fresh volume is private; /run/visible is for the second /proc.
RUN install -d -m 0700 /var/lib/cove /run/cove && install -d /srv/repositories /run/visible
ENV PATH=/opt/cove/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    COVE_STATE=/var/lib/cove COVE_RUNTIME=/run/cove PYTHONUNBUFFERED=1 TINI_SUBREAPER=1
WORKDIR /
CMD ["cove", "--help"]
