"""What do manifests of kube-fledged and OpenKruise ask for, in ours? Text in, ImageCache manifests and remarks out."""

from prewarm.conversion.convert import ConversionError, Converted, convert
from prewarm.conversion.documents import Document, DocumentError, documents
from prewarm.conversion.foreign import Remark

__all__ = ["ConversionError", "Converted", "Document", "DocumentError", "Remark", "convert", "documents"]
