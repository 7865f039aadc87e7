# The server as an image. One list of hashed pins serves contributors and the image: the first stage
# downloads and checks all of it, builds the wheel with the backend from it, and installs what the
# server needs of it; what a contributor needs besides stays behind.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY requirements.txt ./
RUN pip download --quiet --require-hashes --only-binary :all: --dest /wheels --requirement requirements.txt
COPY . .
RUN pip install --quiet --no-index --find-links /wheels hatchling \
 && hatchling build --target wheel --directory /dist \
 && python -m venv --without-pip /opt/oanim \
 && pip --python /opt/oanim/bin/python install --quiet --no-index --find-links /wheels \
        "oanim[server] @ file://$(ls /dist/*.whl)"

FROM python:3.11-slim-bookworm
RUN useradd --system --no-create-home --home-dir /data --shell /usr/sbin/nologin oanim \
 && install --directory --owner oanim --group oanim --mode 0700 /data
COPY --from=build /opt/oanim /opt/oanim
ENV PATH=/opt/oanim/bin:$PATH PYTHONUNBUFFERED=1 OANIM_DATA=/data
USER oanim
VOLUME /data
# gRPC; health, metrics and web pages.
EXPOSE 50051 8081
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", \
    "from http.client import HTTPConnection; c = HTTPConnection('127.0.0.1', 8081, timeout=2); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
# The shell form would keep SIGTERM from the server, and with it the graceful drain.
ENTRYPOINT ["oanim-server"]
CMD ["serve"]
