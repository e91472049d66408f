"""Run records to statistics, tables and figures."""
