"""One file and one settings class per corpus; a new one joins the union below."""

from typing import Annotated

from pydantic import Field

from amscale.data.corpora.question_formation import QuestionFormation
from amscale.data.corpora.text import Text

DataSettings = Annotated[QuestionFormation | Text, Field(discriminator="corpus")]
"""The `data` section of a configuration, told apart by its `corpus`."""

__all__ = ["DataSettings", "QuestionFormation", "Text"]
