"""A shop on disk: its settings, tables, storage, time, registry of models, privacy and consents."""
