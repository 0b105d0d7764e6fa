"""Settings of the tests that draw whole histories."""

from hypothesis import HealthCheck, settings


def settings_for(steps: int, examples: int) -> settings:
    """Return the settings for so many examples of at most so many steps."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
