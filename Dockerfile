# The service in a container. `docker run sluicegate` shows the help; see deploy/README.md for
# the providers and what each needs.

FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY proxy ./proxy
COPY policies ./policies
RUN python -m venv /opt/sluicegate \
 && /opt/sluicegate/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.11-slim
# nft is for the provider of that name; the others need nothing of the system.
RUN apt-get update \
 && apt-get install -y --no-install-recommends nftables \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 15001 --no-create-home --shell /usr/sbin/nologin sluicegate
COPY --from=build /opt/sluicegate /opt/sluicegate
ENV PATH=/opt/sluicegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SLUICEGATE_LISTEN=0.0.0.0:15001 \
    SLUICEGATE_ADMIN__LISTEN=0.0.0.0:15021 \
    SLUICEGATE_EVENTS__PATH=-
# Enough for static and explicit. nft: --user 0 --cap-drop ALL --cap-add NET_ADMIN
USER 15001
EXPOSE 15001 15021
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:15021/readyz', timeout=2)"]
ENTRYPOINT ["sluicegate"]
CMD ["--help"]
