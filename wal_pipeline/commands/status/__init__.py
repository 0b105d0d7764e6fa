"""Shows how the archive stands now, as text, JSON, a Nagios line or Prometheus metrics."""
