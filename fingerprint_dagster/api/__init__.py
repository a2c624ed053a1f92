"""The HTTP API: `FingerprintService` for programs in any language. Needs the extra `serve`."""
