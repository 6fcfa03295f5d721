# One image for every process: docker build -t batchq . ; docker run batchq worker --queues llm
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md CHANGELOG.md ./
COPY batchq ./batchq
COPY examples ./examples
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/batchq-*.whl)[gevent,otel,postgres,prices,s3]"
RUN useradd --create-home --uid 1000 batchq && mkdir /project && chown batchq /project
USER batchq
WORKDIR /project
# Metrics are for the network of the containers; nothing is published unless you say so.
ENV BATCHQ_HOME=/project/.batchq \
    BATCHQ_METRICS_PORT=9180 \
    BATCHQ_METRICS_ADDRESS=0.0.0.0 \
    PYTHONUNBUFFERED=1
# Below what `docker stop` and Kubernetes wait before they kill: see grace_s in operations.md.
STOPSIGNAL SIGTERM
# A worker or a coordinator that lives answers at its port of metrics.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9180/metrics', timeout=4)"]
ENTRYPOINT ["batchq"]
CMD ["--help"]
