# docker build -t airelays-portal .
# No secret is in a layer: keys are made in the volume /data at the first start, or given as settings.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN sh docs/deployment/install.sh /opt/airelays

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --user-group --home-dir /data --no-create-home airelays \
    && install --directory --owner=10001 --group=10001 --mode=700 /data
COPY --from=build /opt/airelays /opt/airelays
ENV PATH=/opt/airelays/bin:$PATH HOME=/data PYTHONDONTWRITEBYTECODE=1 \
    AIRELAYS_DATA_DIR=/data AIRELAYS_HOST=0.0.0.0 AIRELAYS_PORT=8080
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["airelays"]
CMD ["serve"]
