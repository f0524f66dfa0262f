# ArCHer on CPUs, from the locks. Build it from the root of the project; BuildKit reads cpu.Dockerfile.dockerignore:
#
#   docker build -f deploy/docker/cpu.Dockerfile -t archer:cpu .
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/archer
ENV PATH=/opt/archer/bin:$PATH
WORKDIR /src
# The packages change less often than the project, so they are a layer of their own. PyTorch publishes the CPU build of
# torch at this address and not on PyPI; it is installed alone, so that pip looks up no other package there.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements-cpu.lock .
RUN torch="$(grep '^torch==' requirements-cpu.lock)" \
 && pip install --no-deps --extra-index-url "$TORCH_INDEX" "$torch" \
 && pip install --no-deps -r requirements-cpu.lock
COPY . .
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
# libgomp and libnuma: torch and vLLM. tini ends the processes of a job that Kubernetes stops.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libgomp1 libnuma1 tini \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --create-home archer \
 && mkdir /runs && chown archer /runs
COPY --from=build /opt/archer /opt/archer
# Ray uses the `python` and the `archer` that come first on the PATH of `ray start`.
ENV PATH=/opt/archer/bin:$PATH VIRTUAL_ENV=/opt/archer PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
USER 1000
WORKDIR /runs
ENTRYPOINT ["tini", "-g", "--"]
CMD ["archer", "--help"]
