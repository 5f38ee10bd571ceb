"""Pictures of heatmaps, contact sheets and PNG files: what `fvlrp.render` offers.

From arrays, numbers and words to arrays, Pillow images and files. For the wings above show, which do not pass
explanations.
"""

from .colours import colour as colour
from .colours import shared_scale as shared_scale
from .pictures import Pixels as Pixels
from .pictures import Window as Window
from .pictures import alpha as alpha
from .pictures import colour_bar as colour_bar
from .pictures import hatched as hatched
from .pictures import noted as noted
from .pictures import overlay as overlay
from .pictures import to_image as to_image
from .png import LEVEL as LEVEL
from .png import is_own as is_own
from .png import png_bytes as png_bytes
from .png import write_png as write_png
from .sheet import Panel as Panel
from .sheet import sheet as sheet
