"""The command line's sub-commands that are no stage of the job.

In: arguments.
Out: text on the terminal, and the file that an argument names.
Never: domain logic.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "configuration": ["add_config_command"],
        "doctor": ["add_doctor_command"],
        "encoder_parts": ["add_encoder_parts_command"],
        "evaluation": ["add_evaluation_commands"],
        "parser": ["Command", "program", "version_text"],
        "prediction": ["add_prediction_commands"],
        "pretraining": ["add_pretraining_commands"],
        "project_options": ["add_project_options", "project"],
        "projection": ["add_projection_command"],
        "rehearsal": ["add_rehearsal_commands"],
        "store": ["add_store_commands"],
    },
)
