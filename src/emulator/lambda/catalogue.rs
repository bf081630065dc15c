//! What the stand-in rents out: types, prices and regions as the console listed them in July 2026, with a made-up number of machines each.

use crate::cloud::lambda::wire::{Architecture, Image, InstanceType, RegionInfo, Specs};
use crate::model::Region;
use crate::model::date;

/// The regions of the OpenAPI document 1.8.3.
#[rustfmt::skip]
const REGIONS: [(&str, &str); 17] = [
    ("asia-northeast-1", "Osaka, Japan"), ("asia-northeast-2", "Tokyo, Japan"), ("asia-south-1", "India"),
    ("australia-east-1", "Sydney, Australia"), ("europe-central-1", "Germany"), ("me-west-1", "Israel"),
    ("us-east-1", "Virginia, USA"), ("us-east-2", "Washington DC, USA"), ("us-east-3", "Washington DC, USA"),
    ("us-midwest-1", "Illinois, USA"), ("us-midwest-2", "Ohio, USA"), ("us-south-1", "Texas, USA"),
    ("us-south-2", "North Texas, USA"), ("us-south-3", "Central Texas, USA"), ("us-west-1", "California, USA"),
    ("us-west-2", "Arizona, USA"), ("us-west-3", "Utah, USA"),
];

/// The region in which firewall rules have no effect.
pub(super) const WITHOUT_FIREWALL: &str = "us-south-1";

/// A kind of machine and how many of it each region has.
pub(super) struct Kind {
    pub(super) name: &'static str,
    gpu: &'static str,
    gpus: u32,
    cents: u32,
    /// Virtual CPUs, memory and disk in GiB.
    sizes: [u32; 3],
    pub(super) stock: &'static [(&'static str, u32)],
}

const fn kind(
    name: &'static str,
    gpu: &'static str,
    gpus: u32,
    cents: u32,
    sizes: [u32; 3],
    stock: &'static [(&'static str, u32)],
) -> Kind {
    Kind { name, gpu, gpus, cents, sizes, stock }
}

/// Plenty of the small ones all over the world, few of the large ones, none of some.
#[rustfmt::skip]
pub(super) const KINDS: [Kind; 22] = [
    kind("cpu_4x_general", "N/A", 0, 20, [4, 16, 102], &[("us-east-1", 20), ("us-south-1", 20), ("us-west-1", 20)]),
    kind("gpu_1x_a10", "A10 (24 GB PCIe)", 1, 129, [30, 200, 1434], &[("asia-northeast-1", 4), ("europe-central-1", 4), ("us-east-1", 8), ("us-south-1", 4), ("us-west-1", 8)]),
    kind("gpu_1x_a100", "A100 (40 GB PCIe)", 1, 199, [30, 200, 512], &[("asia-northeast-2", 2), ("europe-central-1", 2), ("us-east-1", 6), ("us-west-2", 4)]),
    kind("gpu_1x_a100_sxm4", "A100 (40 GB SXM4)", 1, 199, [30, 200, 512], &[("asia-south-1", 2), ("me-west-1", 2), ("us-east-1", 6), ("us-west-2", 6)]),
    kind("gpu_1x_a6000", "RTX A6000 (48 GB)", 1, 109, [14, 100, 205], &[("us-south-1", 4)]),
    kind("gpu_1x_b200_sxm6", "B200 (180 GB SXM6)", 1, 699, [26, 360, 2867], &[]),
    kind("gpu_1x_gh200", "GH200 (96 GB)", 1, 229, [64, 432, 4096], &[("us-east-3", 4)]),
    kind("gpu_1x_h100_pcie", "H100 (80 GB PCIe)", 1, 329, [26, 200, 1024], &[("us-east-1", 2), ("us-west-3", 2)]),
    kind("gpu_1x_h100_sxm5", "H100 (80 GB SXM5)", 1, 429, [26, 225, 2867], &[("us-south-2", 2), ("us-south-3", 1)]),
    kind("gpu_1x_rtx6000", "Quadro RTX 6000 (24 GB)", 1, 69, [14, 46, 512], &[]),
    kind("gpu_2x_a100", "A100 (40 GB PCIe)", 2, 398, [60, 400, 1024], &[("us-east-1", 2)]),
    kind("gpu_2x_a6000", "RTX A6000 (48 GB)", 2, 218, [28, 200, 1024], &[("us-south-1", 2)]),
    kind("gpu_2x_b200_sxm6", "B200 (180 GB SXM6)", 2, 1378, [52, 720, 5632], &[]),
    kind("gpu_2x_h100_sxm5", "H100 (80 GB SXM5)", 2, 838, [52, 450, 5632], &[("us-south-2", 1)]),
    kind("gpu_4x_a100", "A100 (40 GB PCIe)", 4, 796, [120, 800, 1024], &[("us-east-1", 1)]),
    kind("gpu_4x_a6000", "RTX A6000 (48 GB)", 4, 436, [56, 400, 1024], &[]),
    kind("gpu_4x_h100_sxm5", "H100 (80 GB SXM5)", 4, 1636, [104, 900, 11264], &[]),
    kind("gpu_8x_a100", "A100 (40 GB SXM4)", 8, 1592, [124, 1800, 6144], &[("us-west-1", 1)]),
    kind("gpu_8x_a100_80gb_sxm4", "A100 (80 GB SXM4)", 8, 2232, [240, 1800, 20480], &[("us-midwest-1", 1)]),
    kind("gpu_8x_b200_sxm6", "B200 (180 GB SXM6)", 8, 5352, [208, 2900, 22528], &[]),
    kind("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 8, 3192, [208, 1800, 22528], &[("us-east-2", 1), ("us-west-3", 1)]),
    kind("gpu_8x_v100", "Tesla V100 (16 GB)", 8, 632, [92, 448, 6042], &[("us-south-1", 2)]),
];

impl Kind {
    /// As answers show it.
    pub(super) fn wire(&self) -> InstanceType {
        let [vcpus, memory_gib, storage_gib] = self.sizes;
        let described =
            if self.gpus == 0 { "4x CPU General (16 GiB)".to_owned() } else { format!("{}x {}", self.gpus, self.gpu) };
        InstanceType {
            name: self.name.to_owned(),
            description: described,
            gpu_description: self.gpu.to_owned(),
            price_cents_per_hour: self.cents,
            specs: Specs { vcpus, memory_gib, storage_gib, gpus: self.gpus },
            architecture: None,
        }
    }

    /// Its processor. Only the Grace machines are not x86.
    pub(super) fn architecture(&self) -> Architecture {
        if self.name.contains("gh200") { Architecture::Arm } else { Architecture::X86 }
    }
}

/// The regions of the document, and one more if a fault adds it.
pub(super) fn regions(added: Option<&str>) -> Vec<RegionInfo> {
    let known = REGIONS.iter().copied();
    let all = known.chain(added.map(|name| (name, "Somewhere new")));
    all.map(|(name, place)| RegionInfo { name: Region::new(name), description: place.to_owned() }).collect()
}

/// Families, their versions, and processors that they exist for. The first is the newest Lambda Stack.
const FAMILIES: [(&str, &str, Architecture); 4] = [
    ("lambda-stack-24-04", "24.4.5", Architecture::X86),
    ("lambda-stack-24-04", "24.4.5", Architecture::Arm),
    ("lambda-stack-22-04", "22.4.6", Architecture::X86),
    ("gpu-base-24-04", "24.4.5", Architecture::X86),
];
/// 2026-07-01, when all images were made.
const IMAGES_MADE_US: u64 = 1_782_864_000_000_000;

/// Every image in every region; an id belongs to one region.
pub(super) fn images(regions: &[RegionInfo]) -> Vec<Image> {
    let mut images = Vec::new();
    for (place, region) in regions.iter().enumerate() {
        for (family_index, (family, version, architecture)) in FAMILIES.iter().enumerate() {
            images.push(Image {
                id: format!("{:032x}", (place * FAMILIES.len() + family_index + 1) as u128 * 0x9e37_79b9_7f4a_7c15),
                created_time: date::iso(IMAGES_MADE_US),
                updated_time: date::iso(IMAGES_MADE_US),
                name: format!("{family} {version}"),
                description: "Ubuntu with drivers".to_owned(),
                family: (*family).to_owned(),
                version: (*version).to_owned(),
                architecture: architecture.clone(),
                region: region.clone(),
            });
        }
    }
    images
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{KINDS, images, regions};

    #[test]
    fn the_stock_is_in_regions_that_exist() {
        let known = regions(None);
        for kind in &KINDS {
            for (place, machines) in kind.stock {
                assert!(known.iter().any(|region| region.name.as_str() == *place) && *machines > 0, "{}", kind.name);
            }
            assert_eq!(kind.wire().specs.gpus, kind.gpus);
        }
        assert!(KINDS.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(regions(Some("moon-north-1")).len(), known.len() + 1);
    }

    #[test]
    fn images_have_ids_of_their_own() {
        let all = images(&regions(None));
        let ids: BTreeSet<_> = all.iter().map(|image| &image.id).collect();
        assert_eq!((ids.len(), all.len()), (68, 68));
        assert!(all.iter().all(|image| image.id.len() == 32));
    }
}
