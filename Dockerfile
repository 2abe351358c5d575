# syntax=docker/dockerfile:1

# Dependencies first: they change less often than the code.
FROM python:3.13-slim AS build
COPY --from=ghcr.io/astral-sh/uv:0.9 /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
RUN --mount=type=cache,target=/root/.cache/uv \
    --mount=type=bind,source=uv.lock,target=uv.lock \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    uv sync --locked --no-default-groups --no-install-project

# Then the project, installed as a package: the source tree is not needed at run time.
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY prewarm ./prewarm
COPY crds ./crds
COPY policies ./policies
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-default-groups --no-editable

FROM python:3.13-slim
LABEL org.opencontainers.image.title="prewarm" \
      org.opencontainers.image.description="Has the images of the next pods on their nodes first" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app/.venv /app/.venv
# Few malloc arenas: the controller is one thread of work, and each arena keeps freed memory.
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["prewarm"]
CMD ["run"]
