"""Data sets in Pascal VOC's layout: fetching, generating, checking, reading, batching."""
