//! Pictures, and how they become pixels.

mod animation;
pub mod plot;

pub use animation::{Film, record};

use crate::error::Error;
use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use std::sync::{Arc, LazyLock};

/// The one font of all text, so that pictures are the same on every machine. Of DejaVu Sans 2.35, by fonttools:
///
/// ```text
/// pyftsubset DejaVuSans.ttf --output-file=DejaVuSans-subset.ttf --no-hinting --layout-features=kern \
///     --drop-tables+=FFTM,MATH,gasp \
///     --unicodes=20-7E,B0,B1,D7,3B1,3B2,3B3,3B5,3B8,3BB,3BC,3C0,3C3,3C4,2013,2026,2212
/// ```
const FONT: &[u8] = include_bytes!("DejaVuSans-subset.ttf");
const FONT_FAMILY: &str = "DejaVu Sans";

static OPTIONS: LazyLock<Options> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family(FONT_FAMILY);
    fonts.set_serif_family(FONT_FAMILY);
    fonts.set_monospace_family(FONT_FAMILY);
    Options { fontdb: Arc::new(fonts), font_family: FONT_FAMILY.into(), ..Options::default() }
});

/// The picture `svg` as a PNG, a pixel for each of its units.
///
/// # Errors
/// If it is no SVG, or too large.
pub fn to_png(svg: &str) -> Result<Vec<u8>, Error> {
    Ok(rasterize(svg, None)?.encode_png().context("the picture cannot be written as PNG")?)
}

/// The picture `svg` in so many pixels, `(width, height)`, or one for each of its units.
fn rasterize(svg: &str, size: Option<(u32, u32)>) -> Result<Pixmap> {
    let tree = Tree::from_str(svg, &OPTIONS).context("the picture is no SVG")?;
    let natural = tree.size();
    let (width, height) = size.unwrap_or((natural.width().ceil() as u32, natural.height().ceil() as u32));
    let mut pixels = Pixmap::new(width, height).context("the picture is too large")?;
    let scale = Transform::from_scale(width as f32 / natural.width(), height as f32 / natural.height());
    resvg::render(&tree, scale, &mut pixels.as_mut());
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pixels of a picture of 100 × 20 are not white.
    fn inked(content: &str) -> usize {
        let svg = format!(
            r#"<svg width="100" height="20" xmlns="http://www.w3.org/2000/svg"><rect width="100" height="20" fill="white"/>{content}</svg>"#
        );
        let pixels = rasterize(&svg, None).expect("it is an SVG");
        assert_eq!((pixels.width(), pixels.height()), (100, 20));
        pixels.pixels().iter().filter(|pixel| (pixel.red(), pixel.alpha()) != (255, 255)).count()
    }

    #[test]
    fn text_of_any_family_is_there() {
        assert_eq!(inked(""), 0);
        for family in ["sans-serif", "serif", "monospace", "DejaVu Sans", "A Family That Is Nowhere"] {
            let text =
                |text: &str| inked(&format!(r#"<text y="15" font-family="{family}" font-size="14">{text}</text>"#));
            assert!(text("return") > 100, "{family}");
            for character in "0aZ~×±−–…°%αβγεμπσστθλ".chars() {
                assert!(text(&character.to_string()) > 3, "{family} lacks {character}");
            }
        }
    }

    #[test]
    fn a_png_has_the_size_of_its_svg() {
        let png = to_png(r#"<svg width="30" height="20" xmlns="http://www.w3.org/2000/svg"/>"#).expect("it is an SVG");
        let pixels = Pixmap::decode_png(&png).expect("it is a PNG");
        assert_eq!((pixels.width(), pixels.height()), (30, 20));
        assert!(to_png("<svg").is_err());
    }
}
