"""All domain logic, from waveforms and lab tables to the report; nothing here knows Dagster."""
