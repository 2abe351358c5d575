"""Credentials that the official client obtains: exec plugins, auth providers, merged kubeconfig files."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prewarm.cluster.credentials import FileOrData, TlsFiles
from prewarm.cluster.errors import ConfigurationError

if TYPE_CHECKING:
    import kubernetes.client


class LibraryCredentials:
    """The official client's Configuration of one context, renewed as its plugin's credentials expire.

    Plugins are programs that may ask for minutes: they run in a thread.

    Raises:
        ConfigurationError: if the files are malformed or a plugin gives nothing.
    """

    def __init__(self, files: list[Path], context: str | None) -> None:
        self._files = os.pathsep.join(str(file) for file in files)
        self._context = context
        self._lock = asyncio.Lock()
        self._configuration = self._load()

    def _load(self) -> "kubernetes.client.Configuration":
        import kubernetes.client
        import kubernetes.config

        configuration = kubernetes.client.Configuration()
        try:
            load = kubernetes.config.load_kube_config
            load(self._files, self._context, configuration, persist_config=False)  # type: ignore[no-untyped-call]
        except kubernetes.config.ConfigException as error:
            raise ConfigurationError(f"kubeconfig {self._files}: {error}") from None
        return configuration

    @property
    def server(self) -> str:
        """Base URL of the API server."""
        return str(self._configuration.host)

    @property
    def proxy(self) -> str:
        """URL of the proxy, "" if none."""
        return str(self._configuration.proxy or "")

    @property
    def server_name(self) -> str:
        """Name to expect in the server's certificate, "" for the URL's."""
        return str(self._configuration.tls_server_name or "")

    def context_and_namespace(self) -> tuple[str, str]:
        """Name of the context in use and its namespace."""
        import kubernetes.config

        contexts, active = kubernetes.config.list_kube_config_contexts(self._files)  # type: ignore[no-untyped-call]
        chosen = next((entry for entry in contexts if entry["name"] == self._context), active)
        return str(chosen["name"]), str(chosen["context"].get("namespace") or "default")

    def tls(self) -> TlsFiles:
        """Certificates as of now: a plugin may give a new one."""
        configuration = self._configuration

        def source(path: str | None) -> FileOrData:
            return FileOrData(Path(path)) if path else FileOrData()

        return TlsFiles(
            authority=source(configuration.ssl_ca_cert),
            certificate=source(configuration.cert_file),
            key=source(configuration.key_file),
            skip_verify=not configuration.verify_ssl,
        )

    async def authorization(self) -> str:
        """The plugin's token, fetched again once it has expired."""
        async with self._lock:
            refresh: Callable[[object], None] | None = getattr(self._configuration, "refresh_api_key_hook", None)
            if refresh is not None:
                await asyncio.to_thread(refresh, self._configuration)
            keys = self._configuration.api_key
            token = str(keys.get("BearerToken") or keys.get("authorization") or "")
        if not token and not self._configuration.cert_file:
            raise ConfigurationError(
                f"kubeconfig {self._files}: the credential plugin gave neither token nor certificate"
            )
        return token

    async def renew(self) -> None:
        """Ask the plugin again although its credentials have not expired."""
        async with self._lock:
            self._configuration = await asyncio.to_thread(self._load)
