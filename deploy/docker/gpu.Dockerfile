# ArCHer on NVIDIA GPUs, from the locks. Build it from the root of the project; the host needs NVIDIA's container toolkit:
#
#   docker build -f deploy/docker/gpu.Dockerfile -t archer:gpu .
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/archer
ENV PATH=/opt/archer/bin:$PATH
WORKDIR /src
# The packages change less often than the project, so they are a layer of their own. CUDA's libraries are among them.
COPY requirements-gpu.lock .
RUN pip install --no-deps -r requirements-gpu.lock
COPY . .
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
# gcc and the headers of C: Triton compiles the launchers of its kernels at their first use.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libgomp1 libnuma1 tini \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --create-home archer \
 && mkdir /runs && chown archer /runs
COPY --from=build /opt/archer /opt/archer
# Ray uses the `python` and the `archer` that come first on the PATH of `ray start`. The two variables of NVIDIA give the
# container the GPUs that its pod has, with their driver.
ENV PATH=/opt/archer/bin:$PATH VIRTUAL_ENV=/opt/archer PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /runs
ENTRYPOINT ["tini", "-g", "--"]
CMD ["archer", "--help"]
