//! A strided convolution as convolutions of stride one.
//!
//! Target positions are split by their remainder modulo the stride (input gradient) or source positions are
//! (forward). Then every tap is a plane and a fixed shift, so one kernel serves every stride, padding and dilation.

use super::geometry::{Direction, Geometry, Map};

/// Source positions `origin + step·i` for `i` in 0..size, on both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) origin: [usize; 2],
    pub(crate) step: [usize; 2],
    pub(crate) size: [usize; 2],
}

/// A tap seen from a target grid: target `q` takes position `q + shift` of plane `plane`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tap {
    pub(crate) tap: usize,
    pub(crate) plane: usize,
    pub(crate) shift: [isize; 2],
}

/// The target positions of one remainder, with the taps that reach them.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(crate) target: Grid,
    pub(crate) planes: Vec<Grid>,
    pub(crate) taps: Vec<Tap>,
}

impl Class {
    /// The smallest and largest shift along `axis`.
    pub(crate) fn shifts(&self, axis: usize) -> (isize, isize) {
        let shifts = self.taps.iter().map(|tap| tap.shift[axis]);
        (shifts.clone().min().unwrap_or(0), shifts.max().unwrap_or(0))
    }
}

/// One axis: for every class, where it starts, and per tap the plane's remainder and the shift.
type Axis = Vec<(usize, Vec<(usize, usize, isize)>)>;

fn axis(g: &Geometry, direction: Direction, axis: usize) -> Axis {
    let (stride, dilation, padding) = (g.stride[axis] as isize, g.dilation[axis] as isize, g.padding[axis] as isize);
    let taps = |class: isize| {
        (0..g.kernel[axis])
            .filter_map(|k| match direction {
                Direction::Forward => {
                    let offset = k as isize * dilation - padding;
                    Some((k, offset.rem_euclid(stride) as usize, offset.div_euclid(stride)))
                }
                Direction::InputGradient => {
                    let offset = class + padding - k as isize * dilation;
                    (offset.rem_euclid(stride) == 0).then_some((k, 0, offset.div_euclid(stride)))
                }
            })
            .collect()
    };
    let n_classes = match direction {
        Direction::Forward => 1,
        // Remainders that a position has: a stride may be longer than the picture.
        Direction::InputGradient => g.stride[axis].min(g.input[axis]),
    };
    (0..n_classes).map(|class| (class, taps(class as isize))).collect()
}

/// All classes of a map. Classes without positions are left out; classes without taps are kept (they are zero).
pub(crate) fn classes(map: &Map) -> Vec<Class> {
    let g = &map.geometry;
    let (target_step, source_step) = match map.direction {
        Direction::Forward => ([1, 1], g.stride),
        Direction::InputGradient => (g.stride, [1, 1]),
    };
    let size = |whole: usize, origin: usize, step: usize| whole.saturating_sub(origin).div_ceil(step);
    let (rows, columns) = (axis(g, map.direction, 0), axis(g, map.direction, 1));
    let mut all = Vec::new();
    for (y, row_taps) in &rows {
        for (x, column_taps) in &columns {
            let grid_size = [size(map.target[0], *y, target_step[0]), size(map.target[1], *x, target_step[1])];
            if grid_size.contains(&0) {
                continue;
            }
            let mut planes: Vec<Grid> = Vec::new();
            let mut taps = Vec::new();
            for &(ky, plane_y, shift_y) in row_taps {
                for &(kx, plane_x, shift_x) in column_taps {
                    let grid = Grid {
                        origin: [plane_y, plane_x],
                        step: source_step,
                        size: [
                            size(map.source[0], plane_y, source_step[0]),
                            size(map.source[1], plane_x, source_step[1]),
                        ],
                    };
                    // A tap that lies outside for every position has nothing to add.
                    let reaches =
                        |a: usize, shift: isize| shift < grid.size[a] as isize && shift > -(grid_size[a] as isize);
                    if !reaches(0, shift_y) || !reaches(1, shift_x) {
                        continue;
                    }
                    let plane = planes.iter().position(|one| *one == grid).unwrap_or_else(|| {
                        planes.push(grid);
                        planes.len() - 1
                    });
                    taps.push(Tap { tap: ky * g.kernel[1] + kx, plane, shift: [shift_y, shift_x] });
                }
            }
            let target = Grid { origin: [*y, *x], step: target_step, size: grid_size };
            all.push(Class { target, planes, taps });
        }
    }
    all
}
