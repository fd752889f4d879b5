//! Networks on a GPU: [`Network::forward`] and [`Network::backward`] as launches of the kernels in `kernels/mlp.cu`.

use super::Buffer;
use super::kernels::{Arguments, BackwardInput, BackwardParameters, ForwardLayer, Launch, narrow};
use crate::nn::{Activation, Network};

/// A matrix on the device, one for each network: its first element, the distance from one row to the next, and that from
/// one network to the next. So many networks after one another take the same.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// The first element.
    pub at: Buffer,
    /// From one row to the next.
    pub step: usize,
    /// From one network, or group of networks, to the next.
    pub network: usize,
    /// Networks in such a group.
    pub sharing: usize,
}

impl Matrix {
    /// One for all networks.
    pub fn shared(at: Buffer, step: usize) -> Self {
        Self { at, step, network: 0, sharing: 1 }
    }

    /// One for each network, `rows` rows each.
    pub fn of_each(at: Buffer, step: usize, rows: usize) -> Self {
        Self { at, step, network: rows * step, sharing: 1 }
    }
}

/// From the parameters of one network to those of the next, which begin where four are loaded at once.
pub fn parameters_step(parameters: usize) -> usize {
    parameters.next_multiple_of(4)
}

/// What passes of several networks of one shape leave on the device; [`crate::nn::Pass`] has the same.
pub struct DeviceWorkspace {
    mlp: Network,
    /// hₗ, `[networks, rows, Hₗ]` for each hidden layer.
    pub hidden: Vec<Buffer>,
    rows: usize,
    /// ∂L/∂(hₗ before φ), `[networks, backward_rows, Hₗ]` for each hidden layer.
    pub d_hidden: Vec<Buffer>,
    backward_rows: usize,
    /// From the parameters of one network to those of the next.
    step: usize,
}

impl DeviceWorkspace {
    /// Room for forward passes of so many networks over so many rows, and for backward passes likewise, in buffers of the
    /// lengths that `allocate` is asked for. The parameters of the networks follow each other by [`parameters_step`].
    pub fn new(
        allocate: &mut dyn FnMut(usize) -> Buffer,
        mlp: &Network,
        forward: [usize; 2],
        backward: [usize; 2],
    ) -> Self {
        let layers = mlp.layers();
        let mut buffers = |[networks, rows]: [usize; 2]| -> Vec<Buffer> {
            layers[..layers.len() - 1].iter().map(|layer| allocate(networks * rows * layer.outputs)).collect()
        };
        Self {
            hidden: buffers(forward),
            rows: forward[1],
            d_hidden: buffers(backward),
            backward_rows: backward[1],
            step: parameters_step(mlp.parameters()),
            mlp: mlp.clone(),
        }
    }

    /// The same for networks whose parameters follow each other by `step`.
    #[must_use]
    pub fn apart(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// hₗ from `first_row` on.
    fn hidden(&self, l: usize, first_row: usize) -> Matrix {
        let width = self.mlp.layers()[l].outputs;
        Matrix::of_each(self.hidden[l].at(first_row * width), width, self.rows)
    }

    fn d_hidden(&self, l: usize) -> Matrix {
        Matrix::of_each(self.d_hidden[l], self.mlp.layers()[l].outputs, self.backward_rows)
    }

    /// [`Network::forward`] for `networks` networks over `rows` rows; what it leaves lies in the rows from `first_row` on.
    pub fn forward(
        &self,
        theta: Buffer,
        networks: usize,
        [first_row, rows]: [usize; 2],
        x: Matrix,
        y: Matrix,
    ) -> Vec<Launch> {
        let layers = self.mlp.layers();
        let layer = |l: usize| {
            let (layer, last) = (&layers[l], l + 1 == layers.len());
            let x = if l > 0 { self.hidden(l - 1, first_row) } else { x };
            let y = if last { y } else { self.hidden(l, first_row) };
            let launch = ForwardLayer {
                x: x.at,
                theta: theta.at(layer.weight.start),
                y: y.at,
                x_network: x.network as u64,
                theta_network: self.step as u64,
                y_network: y.network as u64,
                x_sharing: narrow(x.sharing),
                rows: narrow(rows),
                inputs: narrow(layer.inputs),
                outputs: narrow(layer.outputs),
                x_step: narrow(x.step),
                y_step: narrow(y.step),
                activation: if last { NO_ACTIVATION } else { self.activation() },
                unused: 0,
            };
            launch.launch_tiles(rows, layer.outputs, networks)
        };
        (0..layers.len()).map(layer).collect()
    }

    /// [`Network::backward`] after [`Self::forward`] with the same `theta` and `x`: ∂L/∂θ overwrites `d_theta`, and ∂L/∂x over
    /// the last `n` inputs `d_x`, `[networks, rows, n]`, where they are asked for.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        theta: Buffer,
        networks: usize,
        [first_row, rows]: [usize; 2],
        x: Matrix,
        d_y: Matrix,
        d_theta: Option<Buffer>,
        d_x: Option<(Buffer, usize)>,
    ) -> Vec<Launch> {
        let layers = self.mlp.layers();
        assert_eq!(x.sharing, 1);
        let mut launches = Vec::new();
        for (l, layer) in layers.iter().enumerate().rev() {
            let delta = if l + 1 == layers.len() { d_y } else { self.d_hidden(l) };
            let below = if l > 0 { self.hidden(l - 1, first_row) } else { x };
            launches.extend(d_theta.map(|d_theta| {
                let launch = BackwardParameters {
                    h: below.at,
                    delta: delta.at,
                    d_theta: d_theta.at(layer.weight.start),
                    h_network: below.network as u64,
                    delta_network: delta.network as u64,
                    d_theta_network: self.step as u64,
                    rows: narrow(rows),
                    inputs: narrow(layer.inputs),
                    outputs: narrow(layer.outputs),
                    h_step: narrow(below.step),
                    delta_step: narrow(delta.step),
                    unused: 0,
                };
                launch.launch_tiles(layer.inputs, layer.outputs, networks)
            }));
            // What goes down: the gradient over the layer below, or over some of the inputs.
            let (d_below, h, from) = match (l, d_x) {
                (0, None) => continue,
                (0, Some((at, n))) => (Matrix::of_each(at, n, rows), None, layer.inputs - n),
                _ => (self.d_hidden(l - 1), Some(below), 0),
            };
            let launch = BackwardInput {
                delta: delta.at,
                weight: theta.at(layer.weight.start + from * layer.outputs),
                h: h.map_or(Buffer::NONE, |h| h.at),
                d_x: d_below.at,
                delta_network: delta.network as u64,
                weight_network: self.step as u64,
                h_network: h.map_or(0, |h| h.network) as u64,
                d_x_network: d_below.network as u64,
                rows: narrow(rows),
                inputs: narrow(layer.inputs - from),
                outputs: narrow(layer.outputs),
                delta_step: narrow(delta.step),
                h_step: narrow(h.map_or(0, |h| h.step)),
                activation: if h.is_some() { self.activation() } else { NO_ACTIVATION },
            };
            launches.push(launch.launch_tiles(rows, layer.inputs - from, networks));
        }
        launches
    }

    fn activation(&self) -> u32 {
        match self.mlp.activation() {
            Activation::Relu => 1,
            Activation::Tanh => 2,
        }
    }
}

/// `NO_ACTIVATION` of `kernels/formulas.cu`.
const NO_ACTIVATION: u32 = 0;
