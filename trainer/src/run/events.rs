//! TensorBoard event files: TFRecords of `Event` messages.
//!
//! Source: tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto, and for the framing
//! tensorflow/core/lib/io/record_writer.h.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use ndarray::Array2;
use prost::Message;

use crate::files;
use crate::state::Epoch;

/// An event file, open for appending.
pub struct EventFile(File);

impl EventFile {
    /// A new file in `folder` for `step` and later ones. It makes TensorBoard drop those steps of older event files.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(folder: &Path, step: u64) -> Result<Self> {
        let seconds = now();
        let path = (0..).map(|n| folder.join(format!("{PREFIX}{:010}.{n}.trainer", seconds as u64)));
        let path = path.into_iter().find(|path| !path.exists()).expect("a free number");
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let mut events = Self(file.with_context(|| files::cannot_write(&path))?);
        let start = SessionLog { status: 1 };
        let wall_time = seconds;
        events.write(&Event { wall_time, file_version: Some("brain.Event:2".into()), ..Event::default() })?;
        // On SessionLog START, TensorBoard drops all earlier events of this step and later ones.
        events.write(&Event { wall_time, step: step as i64, session_log: Some(start), ..Event::default() })?;
        Ok(events)
    }

    /// Appends the scalars of an epoch and, if given, its grid of samples (height, width) with its PNG file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&mut self, epoch: &Epoch, samples: Option<(&Array2<u8>, &[u8])>) -> io::Result<()> {
        let scalars = [
            ("loss/d", epoch.d_loss),
            ("loss/g", epoch.g_loss),
            ("probability/d_real", epoch.d_real),
            ("probability/d_fake", epoch.d_fake),
            ("samples/variety", epoch.variety),
            ("speed/steps_per_second", epoch.steps_per_second as f32),
        ];
        let score = epoch.frechet_distance.map(|distance| ("score/frechet_distance", distance as f32));
        let mut value: Vec<Value> = (scalars.into_iter().chain(score))
            .map(|(tag, x)| Value { tag: tag.into(), simple_value: Some(x), image: None })
            .collect();
        let image = samples.map(|(grid, png)| Image {
            height: grid.nrows() as i32,
            width: grid.ncols() as i32,
            colorspace: 1,
            encoded_image_string: png.into(),
        });
        value.extend(image.map(|image| Value { tag: "samples".into(), simple_value: None, image: Some(image) }));
        let summary = Some(Summary { value });
        self.write(&Event { wall_time: now(), step: epoch.step as i64, summary, ..Event::default() })
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let record = [&length[..], &masked_crc(&length), &data, &masked_crc(&data)].concat();
        self.0.write_all(&record)
    }
}

/// Start of an event file's name, by which TensorBoard knows it.
pub const PREFIX: &str = "events.out.tfevents.";

fn masked_crc(data: &[u8]) -> [u8; 4] {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1 is START.
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "4")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(int32, tag = "1")]
    height: i32,
    #[prost(int32, tag = "2")]
    width: i32,
    /// 1 is greyscale.
    #[prost(int32, tag = "3")]
    colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    encoded_image_string: Vec<u8>,
}
